//! Who a balancer in front speaks for: its PROXY header, read from a connection before anything else on it.
//!
//! The one reader for the name server and for the edge. It takes not an octet more than the header has, and no more than
//! [`proxy_line`] allows; who may send one, and how long that may take, is the caller's to say.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::proxy_line::{self, Ends, Fault, Line};

/// There was no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unread {
    /// The connection ended before it was whole.
    #[error("the connection ended within its PROXY header")]
    Cut,
    /// It is none that could be read.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Reads a PROXY header. `None`: it speaks for itself, or for nobody whom it could name.
///
/// # Errors
/// As [`Unread`] lists.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Ends>, Unread> {
    let mut seen = Vec::new();
    loop {
        match proxy_line::parse(&seen)? {
            Line::Whole { ends, .. } => return Ok(ends),
            // The parser bounds how much is asked for in all.
            Line::More(octets) => {
                let at = seen.len();
                seen.resize(at + octets, 0);
                let room = seen.get_mut(at..).unwrap_or_default();
                stream.read_exact(room).await.map_err(|_| Unread::Cut)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_follows_is_left_where_it_is() {
        let mut stream: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 80\r\nGET / HTTP/1.1\r\n";
        let ends = read(&mut stream).await.unwrap().unwrap();
        assert_eq!(
            (ends.source.to_string(), ends.destination.to_string()),
            ("192.0.2.7:51234".into(), "198.51.100.1:80".into())
        );
        assert_eq!(stream, b"GET / HTTP/1.1\r\n");
        assert_eq!(read(&mut stream).await, Err(Unread::Fault(Fault::Absent)));
        assert_eq!(read(&mut &b"PROXY TCP4 192.0.2.7"[..]).await, Err(Unread::Cut));
    }
}
