//! Tests of `balance`.
