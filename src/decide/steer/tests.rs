//! Shares, stickiness and movement of steering, and the cases that an operator asks about.

#![allow(unused)]
use super::*;
