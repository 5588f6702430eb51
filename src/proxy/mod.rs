//! Floor 6: the L7 edge. A request passes the ordered list of stages in `stages`; each is a plain function.

pub mod explain;
pub mod view;

pub use explain::{Question, explain};
