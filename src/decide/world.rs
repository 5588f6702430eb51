//! Small worlds for the tests of decisions: a snapshot by a few strokes.
