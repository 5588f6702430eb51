//! What HTTP/2 clients of a listener may do.

/// What one HTTP/2 connection of a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at a time. Default 128 (nginx's).
    pub streams: u32,
    /// Requests in all (EDGE 4, gap 10). Default 10,000.
    pub total_streams: u32,
    /// Frames that make work for nothing, at once (ours). Default 1,000.
    pub glitches: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self { streams: 128, total_streams: 10_000, glitches: 1_000 }
    }
}
