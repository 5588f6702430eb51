//! Queries that are read and that are refused, octet by octet.

#![allow(unused)]
use super::*;
