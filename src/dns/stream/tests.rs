//! Connections, limits and framing of the TCP side.

#![allow(unused)]
use super::*;
