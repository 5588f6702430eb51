//! HTTP/3 beside a listener's HTTP/1.1 and HTTP/2.

use super::super::kinds::{Count, Flag};
use super::super::reader::section;
use super::super::words::Time;
use super::NINETY_DAYS;

section! {
    /// HTTP/3, over UDP on the same addresses and ports and with the same certificates. `http3 = true` is all of the defaults.
    Http3 {
        /// Whether responses over TCP tell clients of it (`Alt-Svc`, RFC 7838). A reload that turns it off tells them to forget
        /// it.
        advertise: Flag = true,
        /// For how long clients remember that.
        max_age: Time<1_000, NINETY_DAYS> = "1d",
        /// Requests of one connection at a time.
        streams: Count<1, 1_000> = 100,
    } synonyms {
        alt_svc: "advertise", announce: "advertise", ma: "max_age", max_streams: "streams", concurrent: "streams",
    }
}
