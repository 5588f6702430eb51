//! Floor 1: what an operator may say, and what it means.
//!
//! Two stages. `raw` is what was said, with the place where it was said; [`check`] turns it into a [`Config`], which is
//! what it means, or into ALL findings at once. Everything behind this floor takes a [`Config`] for true: names are
//! resolved to ids, quantities are typed, limits hold. Nothing here reads a file but [`check::load`] and
//! [`homes::Homes::load`].

pub mod check;
pub mod diag;
mod guess;
pub mod homes;
mod kinds;
pub mod model;
mod moment;
mod raw;
mod reader;
pub mod schema;
mod words;

pub use model::*;
