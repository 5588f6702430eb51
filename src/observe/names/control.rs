//! Metrics of the health core.

use super::{Kind, table};

table! {
    GENERATION: Kind::Gauge, "springtide_control_generation", [], "Generation of the snapshot that is in force.";
}
