//! The file with what every request to the collector of spans carries: fields, one in each line.

use std::path::{Path, PathBuf};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::warn;

use crate::base::file;
use crate::config::Config;

/// The largest such file, and the most fields of one (ours).
const MOST: (u64, usize) = (64 * 1024, 64);
/// What is ours to say.
const OURS: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING];

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}; it must hold `name: value` lines, readable by this user", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of it is no field. What stands there is not repeated: it may be a secret.
    #[error("{}:{line}: no field that may be sent; write `name: value`, such as `authorization: Bearer ...`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It has too many.
    #[error("{}: more than {} fields", path.display(), MOST.1)]
    Many {
        /// The file.
        path: PathBuf,
    },
}

/// What every request to the collector of `config` carries.
pub(super) fn headers(config: &Config) -> Result<HeaderMap, HeadersError> {
    let path = config.trace.as_ref().and_then(|trace| trace.export.as_ref()?.headers.as_deref());
    let Some(path) = path else { return Ok(HeaderMap::new()) };
    let read = file::text(path, MOST.0);
    let (text, metadata) = read.map_err(|source| HeadersError::Unreadable { path: path.into(), source })?;
    if let Some(mode) = file::open_to_others(&metadata) {
        let mode = format!("{mode:o}");
        warn!(target: "config", file = %path.display(), mode, "others may read what the collector is told: chmod 600");
    }
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<HeaderMap, HeadersError> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = field(line).ok_or_else(|| HeadersError::Line { path: path.into(), line: number + 1 })?;
        headers.append(name, value);
    }
    if headers.len() > MOST.1 { Err(HeadersError::Many { path: path.into() }) } else { Ok(headers) }
}

fn field(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::try_from(name).ok().filter(|name| !OURS.contains(name))?;
    let mut value = HeaderValue::try_from(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_lines() {
        let path = Path::new("headers");
        let read = parse("# for the collector\n\nAuthorization: Bearer a:b\n x-scope-orgid:gifts \n", path).unwrap();
        assert_eq!(
            (read.len(), &read["authorization"], &read["x-scope-orgid"]),
            (2, &"Bearer a:b".parse().unwrap(), &"gifts".parse().unwrap())
        );
        assert!(read.values().all(HeaderValue::is_sensitive), "they are in no log");
        for bad in ["secret", "a b: c", "host: x", "content-length: 1", ": x", "x: \u{1}"] {
            let wrong = parse(&format!("x: y\n{bad}\n"), path).unwrap_err().to_string();
            assert!(wrong.starts_with("headers:2: ") && !wrong.contains("secret"), "{wrong}");
        }
        let many: Vec<String> = (0..=MOST.1).map(|n| format!("a{n}: b")).collect();
        assert!(matches!(parse(&many.join("\n"), path), Err(HeadersError::Many { .. })));
    }
}
