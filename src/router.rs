//! Floor 7: the embedding API. Loads what a configuration names, wires control and edges, runs until told to stop.
