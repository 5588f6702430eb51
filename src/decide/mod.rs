//! Floor 3: decisions as pure functions. Time and entropy come in as arguments; out come an action and a reason.
