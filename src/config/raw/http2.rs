//! What HTTP/2 clients of a listener may do.

use super::super::kinds::Count;
use super::super::reader::section;

section! {
    /// What one HTTP/2 connection of a client may do.
    Http2 {
        /// Requests at a time.
        streams: Count<1, 1_000> = 128,
        /// Requests in all; then it is asked to leave, and what runs may finish.
        total_streams: Count<1, 1_000_000_000> = 10_000,
        /// Frames that make work for nothing, at once; a tenth of them comes back every second, and one with each response.
        /// At three quarters the connection is asked to leave, at all of them it is cut.
        glitches: Count<10, 1_000_000> = 1_000,
    } later {
        window: "windows are fixed: 256 KiB a stream, 1 MiB a connection",
    } synonyms {
        max_concurrent_streams: "streams", concurrent: "streams", requests: "total_streams", max_requests: "total_streams",
        glitches_threshold: "glitches",
    }
}
