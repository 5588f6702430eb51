//! Floor 6: the admin API: state, evidence, `explain`, operators' intents, metrics.
