//! Metrics of the `proxy` area.

#[allow(unused_imports, reason = "an area may have one kind only")]
use super::{Kind, SECONDS, table};

table! {}
