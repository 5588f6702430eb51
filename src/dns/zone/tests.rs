//! What makes a zone, and what is said of one that is none.

#![allow(unused)]
use super::*;
