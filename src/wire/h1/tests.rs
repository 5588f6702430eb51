//! Heads and bodies of HTTP/1: what is read, what is refused, and that what is written is read the same.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, StatusCode, Version};
use proptest::prelude::*;

use super::body::{Decoder, Piece};
use super::{FIELDS, Flaw, HEAD_BYTES, Length, TARGET_BYTES, head, write};

fn asked(text: &str) -> Result<head::Request, Flaw> {
    let end = head::end(text.as_bytes(), 0)?.expect("a whole head");
    assert_eq!(end, text.len());
    head::request(&Bytes::copy_from_slice(text.as_bytes()))
}

fn answered(text: &str, method: &Method) -> Result<head::Response, Flaw> {
    head::end(text.as_bytes(), 0)?.expect("a whole head");
    head::response(&Bytes::copy_from_slice(text.as_bytes()), method)
}

#[test]
fn a_request_is_read() {
    let head =
        asked("POST /a?b=c HTTP/1.1\r\nHost: x.test\r\nX-A:  1 \t\r\nx-a: 2\r\ncontent-length: 5\r\n\r\n").unwrap();
    assert_eq!((head.method, head.target.path(), head.target.query()), (Method::POST, "/a", Some("b=c")));
    assert_eq!((head.version, head.length, head.keeps), (Version::HTTP_11, Length::Exact(5), true));
    assert_eq!(head.headers[HOST], "x.test");
    assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let line = |line: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n");
    let table = [
        (line("Content-Length: 1\r\nTransfer-Encoding: chunked"), Flaw::Both),
        (line("Transfer-Encoding: chunked\r\nContent-Length: 1"), Flaw::Both),
        (line("Transfer-Encoding: gzip, chunked"), Flaw::Coding),
        (line("Transfer-Encoding: chunked, chunked"), Flaw::Coding),
        (line("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Flaw::Coding),
        (line("Transfer-Encoding: identity"), Flaw::Coding),
        (line("Transfer-Encoding: xchunked"), Flaw::Coding),
        (line("Transfer-Encoding:"), Flaw::Coding),
        (line("Content-Length: 5\r\nContent-Length: 5"), Flaw::Length),
        (line("Content-Length: 5\r\nContent-Length: 6"), Flaw::Length),
        (line("Content-Length: 5, 5"), Flaw::Length),
        (line("Content-Length: +5"), Flaw::Length),
        (line("Content-Length: -1"), Flaw::Length),
        (line("Content-Length: 0x5"), Flaw::Length),
        (line("Content-Length: 5 5"), Flaw::Length),
        (line("Content-Length:"), Flaw::Length),
        (line("Content-Length: 9999999999999999999"), Flaw::Length),
        (line("Transfer-Encoding : chunked"), Flaw::Field),
        (line("A: b\r\n folded"), Flaw::Field),
        (line("A: b\r\n\tfolded"), Flaw::Field),
        (line(": empty"), Flaw::Field),
        (line("no colon"), Flaw::Field),
        (line("A: \0"), Flaw::Field),
        (line("A: b\x0bc"), Flaw::Field),
        (line("A: b\rc"), Flaw::Field),
        (line("Ä: b"), Flaw::Field),
        (line("A: b\nB: c"), Flaw::LineEnd),
        ("GET / HTTP/1.1\nHost: x\n\n".into(), Flaw::LineEnd),
        ("GET / HTTP/1.1\r\n\n".into(), Flaw::LineEnd),
        ("\r\nGET / HTTP/1.1\r\n\r\n".into(), Flaw::FirstLine),
        ("GET  / HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET / x HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET /\t HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET /ä HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET /\r HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET /  HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET /#a HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET a.test HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET a.test:80 HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET ?a HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET ://a.test/ HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET ftp://a.test/ HTTP/1.1\r\n\r\n".into(), Flaw::Target),
        ("GET / HTTP/1.1 \r\n\r\n".into(), Flaw::FirstLine),
        ("GET /\r\n\r\n".into(), Flaw::FirstLine),
        ("GET\r\n\r\n".into(), Flaw::FirstLine),
        (" / HTTP/1.1\r\n\r\n".into(), Flaw::FirstLine),
        ("G(T / HTTP/1.1\r\n\r\n".into(), Flaw::FirstLine),
        ("GET / http/1.1\r\n\r\n".into(), Flaw::FirstLine),
        ("GET / HTTP/1.10\r\n\r\n".into(), Flaw::FirstLine),
        ("GET / HTTP/2.0\r\n\r\n".into(), Flaw::Version),
        ("GET / HTTP/0.9\r\n\r\n".into(), Flaw::Version),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Flaw::Coding),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_BYTES)), Flaw::LongTarget),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1)), Flaw::ManyFields),
        (line(&format!("a: {}", "b".repeat(HEAD_BYTES))), Flaw::LongHead),
    ];
    for (text, flaw) in table {
        assert_eq!(asked_or_end(&text), Err(flaw), "{text:?}");
    }
}

fn asked_or_end(text: &str) -> Result<(), Flaw> {
    let Some(end) = head::end(text.as_bytes(), 0)? else { panic!("not whole: {text:?}") };
    // A head that ends early has ended: what follows is another one.
    head::request(&Bytes::copy_from_slice(&text.as_bytes()[..end])).map(drop)
}

#[test]
fn an_endless_head_ends_at_the_limit() {
    let mut text = b"GET / HTTP/1.1\r\n".to_vec();
    while text.len() < HEAD_BYTES - 8 {
        text.extend(b"a: b\r\n");
        assert_eq!(head::end(&text, text.len() - 6), Ok(None));
    }
    text.extend([b'x'; 16]);
    assert_eq!(head::end(&text, 0), Err(Flaw::LongHead));
}

#[test]
fn who_keeps_a_connection() {
    for (version, connection, keeps) in [
        ("1.1", None, true),
        ("1.1", Some("close"), false),
        ("1.1", Some("Close, x"), false),
        ("1.1", Some("keep-alive, close"), false),
        ("1.1", Some("upgrade"), true),
        ("1.0", None, false),
        ("1.0", Some("Keep-Alive"), true),
        ("1.0", Some("keep-alive, close"), false),
    ] {
        let field = connection.map(|c| format!("Connection: {c}\r\n")).unwrap_or_default();
        let head = asked(&format!("GET / HTTP/{version}\r\n{field}\r\n")).unwrap();
        assert_eq!(head.keeps, keeps, "{version} {connection:?}");
    }
}

#[test]
fn a_response_is_framed_by_what_was_asked_and_by_its_status() {
    let get = Method::GET;
    for (text, method, length, keeps) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &get, Length::Exact(5), true),
        ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", &get, Length::Exact(0), true),
        ("HTTP/1.1 200 \r\ntransfer-encoding: Chunked\r\n\r\n", &get, Length::Chunked, true),
        ("HTTP/1.1 200 OK\r\n\r\n", &get, Length::UntilClose, false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", &get, Length::Exact(5), false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &Method::HEAD, Length::None, true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", &get, Length::None, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", &get, Length::None, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", &get, Length::None, true),
    ] {
        let head = answered(text, method).unwrap();
        assert_eq!((head.length, head.keeps), (length, keeps), "{text:?}");
    }
    for (text, flaw) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", Flaw::Both),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Flaw::Coding),
        ("HTTP/1.1 20 OK\r\n\r\n", Flaw::FirstLine),
        ("HTTP/1.1 2000\r\n\r\n", Flaw::FirstLine),
        ("HTTP/1.1  200 OK\r\n\r\n", Flaw::FirstLine),
        ("HTTP/1.1 099 OK\r\n\r\n", Flaw::FirstLine),
        ("HTTP/1.1 200 \x01\r\n\r\n", Flaw::FirstLine),
        ("ICY 200 OK\r\n\r\n", Flaw::FirstLine),
        ("HTTP/3.0 200 OK\r\n\r\n", Flaw::Version),
    ] {
        assert_eq!(answered(text, &get).err(), Some(flaw), "{text:?}");
    }
}

/// A body, how many octets it and its framing took, and its trailers.
type Read = (Vec<u8>, usize, Option<HeaderMap>);

/// What `decoder` makes of `octets` that come in pieces of these sizes, in turn.
fn read(mut decoder: Decoder, octets: &[u8], sizes: &[usize]) -> Result<Option<Read>, Flaw> {
    let (mut buffer, mut body, mut taken) = (Vec::new(), Vec::new(), 0);
    let mut sizes = sizes.iter().cycle();
    let mut come = 0;
    loop {
        let step = decoder.step(&buffer)?;
        buffer.drain(..step.skip);
        taken += step.skip;
        match step.what {
            Piece::Data(length) => {
                assert!(length > 0);
                body.extend(buffer.drain(..length));
                taken += length;
            }
            Piece::End(trailers) => {
                assert!(decoder.has_ended());
                return Ok(Some((body, taken, trailers.map(|t| *t))));
            }
            Piece::Wait if come == octets.len() => return Ok(None),
            Piece::Wait => {
                let next = sizes.next().map_or(1, |n| (*n).max(1)).min(octets.len() - come);
                buffer.extend(&octets[come..come + next]);
                come += next;
            }
        }
    }
}

#[test]
fn broken_chunks_are_refused() {
    for (text, flaw) in [
        ("5\nabcde\r\n0\r\n\r\n", Flaw::LineEnd),
        ("5\r\nabcdeX0\r\n\r\n", Flaw::Chunk),
        ("5\r\nabcde\n0\r\n\r\n", Flaw::Chunk),
        ("\r\n", Flaw::Chunk),
        ("x\r\n", Flaw::Chunk),
        ("0x5\r\n", Flaw::Chunk),
        ("+5\r\n", Flaw::Chunk),
        ("-5\r\n", Flaw::Chunk),
        (" 5\r\n", Flaw::Chunk),
        ("5 \r\n", Flaw::Chunk),
        ("5 ;a\r\n", Flaw::Chunk),
        ("5;a\rb\r\n", Flaw::Chunk),
        ("5;a\0\r\n", Flaw::Chunk),
        ("ffffffffffffffff\r\n", Flaw::Chunk),
        ("0\r\na b: c\r\n\r\n", Flaw::Trailers),
        ("0\r\na: b\n\r\n", Flaw::Trailers),
        ("0\r\n: b\r\n\r\n", Flaw::Trailers),
    ] {
        for sizes in [&[1][..], &[1_000]] {
            assert_eq!(read(Decoder::new(Length::Chunked), text.as_bytes(), sizes), Err(flaw), "{text:?}");
        }
    }
    let long = format!("5;{}", "a".repeat(2_000));
    assert_eq!(read(Decoder::new(Length::Chunked), long.as_bytes(), &[100]), Err(Flaw::Chunk));
    let many = format!("1;{}\r\nx\r\n", "a".repeat(1_000)).repeat(17);
    assert_eq!(read(Decoder::new(Length::Chunked), many.as_bytes(), &[5_000]), Err(Flaw::Chunk));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(2_000));
    assert_eq!(read(Decoder::new(Length::Chunked), trailers.as_bytes(), &[1_000]), Err(Flaw::Trailers));
}

#[test]
fn a_body_that_ends_with_its_connection_ends_only_there() {
    let mut decoder = Decoder::new(Length::UntilClose);
    assert_eq!(decoder.step(b"abc").unwrap().what, Piece::Data(3));
    assert_eq!(decoder.step(b"").unwrap().what, Piece::Wait);
    assert!(decoder.close() && decoder.has_ended());
    assert!(!Decoder::new(Length::Exact(1)).close() && !Decoder::new(Length::Chunked).close());
}

#[test]
fn heads_are_written_with_one_framing() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, "7".parse().unwrap());
    headers.insert("transfer-encoding", "gzip".parse().unwrap());
    headers.insert("a", "b".parse().unwrap());
    let mut out = Vec::new();
    write::request(&mut out, &Method::PUT, "/x?y", &headers, |_| (), Length::Exact(18_446_744_073_709_551_615));
    assert_eq!(out, b"PUT /x?y HTTP/1.1\r\na: b\r\ncontent-length: 18446744073709551615\r\n\r\n");
    out.clear();
    write::response(&mut out, StatusCode::OK, &headers, Length::Chunked, write::Keeps::No, b"D");
    assert_eq!(out, b"HTTP/1.1 200 OK\r\na: b\r\ndate: D\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    for ambiguous in [headers.clone(), [(CONTENT_LENGTH, "7, 7".parse().unwrap())].into_iter().collect()] {
        out.clear();
        write::response(&mut out, StatusCode::NOT_MODIFIED, &ambiguous, Length::None, write::Keeps::Yes, b"D");
        assert!(!String::from_utf8_lossy(&out).contains("content-length"), "what is told of a body is a number");
    }
    headers.remove("transfer-encoding");
    out.clear();
    write::response(&mut out, StatusCode::NOT_MODIFIED, &headers, Length::None, write::Keeps::Aloud, b"D");
    assert_eq!(
        out,
        b"HTTP/1.1 304 Not Modified\r\na: b\r\ndate: D\r\ncontent-length: 7\r\nconnection: keep-alive\r\n\r\n"
    );
}

proptest! {
    /// However it is cut, a body comes out as it went in, to the last octet and not further.
    #[test]
    fn chunks_come_through(
        body in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
        sizes in proptest::collection::vec(1usize..400, 1..6),
        with_trailers in any::<bool>(),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let trailers = with_trailers.then_some(trailers);
        let mut wire = Vec::new();
        for part in &body {
            write::chunk(&mut wire, part.len());
            wire.extend(part);
            wire.extend(b"\r\n");
        }
        write::last_chunk(&mut wire, trailers.as_ref());
        let length = wire.len();
        wire.extend(&behind);
        let read = read(Decoder::new(Length::Chunked), &wire, &sizes).unwrap();
        prop_assert_eq!(read, Some((body.concat(), length, trailers)));
    }

    /// Nothing that comes in makes the decoder panic, stand still with room, or take more than there is.
    #[test]
    fn anything_may_come(octets in "[0-9a-fA-F;\r\n x:]{0,60}", sizes in proptest::collection::vec(1usize..20, 1..4)) {
        let whole = read(Decoder::new(Length::Chunked), octets.as_bytes(), &[1_000]);
        let cut = read(Decoder::new(Length::Chunked), octets.as_bytes(), &sizes);
        prop_assert_eq!(whole, cut, "the same, however it is cut");
    }

    /// What our writer writes, our reader reads.
    #[test]
    fn heads_come_through(
        path in "/[a-z0-9/%?=&.-]{0,40}",
        fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,12}", "[!-~][ -~]{0,20}"), 0..12),
    ) {
        prop_assume!(path.parse::<http::Uri>().is_ok());
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: http::HeaderName = format!("x-{name}").parse().unwrap();
            headers.append(name, value.trim_end().parse().unwrap());
        }
        let mut out = Vec::new();
        write::request(&mut out, &Method::GET, &path, &headers, |_| (), Length::None);
        for cut in 0..out.len() {
            prop_assert_eq!(head::end(&out[..cut], cut / 2), Ok(None));
        }
        prop_assert_eq!(head::end(&out, out.len() - 1), Ok(Some(out.len())));
        let read = head::request(&Bytes::from(out)).unwrap();
        prop_assert_eq!(read.target.to_string(), path);
        prop_assert_eq!(read.headers, headers);
    }
}
