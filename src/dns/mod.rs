//! Floor 6: the name server. One pure `answer` serves every transport; the transports are thin loops.
