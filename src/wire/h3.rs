//! HTTP/3 on the wire (RFC 9114) with QPACK of the static table alone (RFC 9204), read as strictly as HTTP/1 is (EDGE 4).
//!
//! Pure: octets of a stream go in as they come, and what comes out are heads, octets of bodies and settings, or an error code
//! and whether it ends the stream or the connection. What is compressed needs no memory from one head to the next, since we
//! offer no dynamic table (`SETTINGS_QPACK_MAX_TABLE_CAPACITY` 0, its default): a head that is too long can be left unread,
//! and no stream waits for another one. Why this is our own is in docs/DEPENDENCIES.md.

pub mod control;
pub mod frame;
pub mod head;
mod huffman;
pub mod qpack;
pub mod request;
mod table;

#[cfg(test)]
mod tests;

/// Error codes (RFC 9114 section 8.1, RFC 9204 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// All is well.
    NoError = 0x100,
    /// A mistake of ours.
    InternalError = 0x102,
    /// A stream that we do not want.
    StreamCreationError = 0x103,
    /// A stream was closed that a connection cannot be without.
    ClosedCriticalStream = 0x104,
    /// A frame where it may not stand.
    FrameUnexpected = 0x105,
    /// A frame that is cut, or too long for what it is.
    FrameError = 0x106,
    /// Too much of something.
    ExcessiveLoad = 0x107,
    /// An id that goes back, or names what never was.
    IdError = 0x108,
    /// Settings that may not be.
    SettingsError = 0x109,
    /// Something came before the settings.
    MissingSettings = 0x10a,
    /// Not looked at, and safe to send again.
    RequestRejected = 0x10b,
    /// Given up.
    RequestCancelled = 0x10c,
    /// A request without a whole head.
    RequestIncomplete = 0x10d,
    /// A malformed message.
    MessageError = 0x10e,
    /// A head that cannot be decompressed.
    QpackDecompressionFailed = 0x200,
    /// Nonsense from the other side's encoder.
    QpackEncoderStreamError = 0x201,
    /// Nonsense from the other side's decoder.
    QpackDecoderStreamError = 0x202,
}

impl Code {
    /// Its label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "no_error",
            Self::InternalError => "internal_error",
            Self::StreamCreationError => "stream_creation_error",
            Self::ClosedCriticalStream => "closed_critical_stream",
            Self::FrameUnexpected => "frame_unexpected",
            Self::FrameError => "frame_error",
            Self::ExcessiveLoad => "excessive_load",
            Self::IdError => "id_error",
            Self::SettingsError => "settings_error",
            Self::MissingSettings => "missing_settings",
            Self::RequestRejected => "request_rejected",
            Self::RequestCancelled => "request_cancelled",
            Self::RequestIncomplete => "request_incomplete",
            Self::MessageError => "message_error",
            Self::QpackDecompressionFailed => "qpack_decompression_failed",
            Self::QpackEncoderStreamError => "qpack_encoder_stream_error",
            Self::QpackDecoderStreamError => "qpack_decoder_stream_error",
        }
    }
}

/// The peer broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The whole connection ends.
    #[error("the connection cannot go on: {}", .0.as_str())]
    Connection(Code),
    /// The stream ends, and nothing else.
    #[error("the request cannot go on: {}", .0.as_str())]
    Stream(Code),
}
