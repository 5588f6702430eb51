//! Any bytes as a traceparent and, behind a line's end, tracestate fields.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::trace_context(data));
