//! Floor 1: pure codecs. Bytes in, values out, and back; no IO, no clock, no allocation where the hot path needs none.
//!
//! Nothing here panics on any input: every parser is fuzzed, and the corpus is replayed in the tests.

pub mod cidr;
pub mod client_cert;
pub mod cookie;
pub mod date;
pub mod dns;
pub mod dnssec;
pub mod doh;
pub mod ecs;
pub mod forwarded;
pub mod h1;
pub mod h2;
pub mod h3;
pub mod head;
pub mod host;
pub mod lookup;
pub mod master;
pub mod mmdb;
pub mod name;
pub mod notify;
pub mod otlp;
pub mod path;
pub mod proxy_line;
pub mod query;
pub mod rdata;
pub mod svcb;
pub mod text;
pub mod ticket;
pub mod trace_context;
pub mod tsig;
pub mod websocket;
pub mod x509;
pub mod zone;
