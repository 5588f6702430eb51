//! HTTP/3 as octets: what is read, what is refused, and that it does not matter in what pieces it comes.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;

use super::control::{Control, DecoderSays, Word, encoder_says, go_away, hello};
use super::frame::{self, UNKNOWN_BYTES, kind};
use super::head::{self, Flaw};
use super::qpack::Section;
use super::request::{Part, Reader, Wrong};
use super::{Code, Fault};
use crate::wire::h1::{FIELDS, HEAD_BYTES, TARGET_BYTES};

/// A field section of literal fields.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        string(&mut out, 0x20, 3, name);
        string(&mut out, 0, 7, value);
    }
    out
}

fn string(out: &mut Vec<u8>, flags: u8, bits: u32, text: &str) {
    let mask = (1usize << bits) - 1;
    if text.len() < mask {
        out.push(flags | text.len() as u8);
    } else {
        out.push(flags | mask as u8);
        let mut rest = text.len() - mask;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x?y")];

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    section(&[&GET[..], more].concat())
}

fn framed(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_header(&mut out, kind, payload.len());
    out.extend_from_slice(payload);
    out
}

#[test]
fn a_request_is_read() {
    let head = head::request(&with(&[("x-a", "1"), ("cookie", "a=b"), ("x-a", "2"), ("content-length", "5")])).unwrap();
    assert_eq!((head.method, head.target.to_string().as_str()), (Method::GET, "https://a.test/x?y"));
    assert_eq!((head.headers.len(), head.length), (4, Some(5)));
    assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    let host = [(":method", "OPTIONS"), (":scheme", "https"), (":path", "*"), ("host", "b.test")];
    assert_eq!(head::request(&section(&host)).unwrap().target, "*");
    let connect = [(":method", "CONNECT"), (":authority", "a.test:443")];
    assert_eq!(head::request(&section(&connect)).unwrap().target, "a.test:443");
}

/// RFC 9204 appendix B.1: a name from the static table.
#[test]
fn the_example_of_the_rfc() {
    let octets = [&[0, 0, 0x51, 0x0b][..], b"/index.html"].concat();
    let section = Section::read(&octets).unwrap();
    let field = section.fields().next().unwrap();
    assert_eq!((field.name(), field.value()), (&b":path"[..], &b"/index.html"[..]));
}

#[test]
fn malformed_heads_are_refused() {
    let without = |gone: &str| section(&GET.into_iter().filter(|(name, _)| *name != gone).collect::<Vec<_>>());
    let changed = |changed: &str, value: &'static str| {
        section(&GET.map(|(name, said)| (name, if name == changed { value } else { said })))
    };
    let long = "a".repeat(TARGET_BYTES);
    let path = format!("/{long}");
    let table = [
        (without(":method"), Flaw::Pseudo),
        (without(":scheme"), Flaw::Pseudo),
        (without(":path"), Flaw::Pseudo),
        (without(":authority"), Flaw::Pseudo),
        (with(&[(":path", "/")]), Flaw::Pseudo),
        (with(&[(":authority", "a.test")]), Flaw::Pseudo),
        (with(&[(":method", "GET")]), Flaw::Pseudo),
        (with(&[(":status", "200")]), Flaw::Pseudo),
        (with(&[(":protocol", "websocket")]), Flaw::Pseudo),
        (with(&[(":Path", "/")]), Flaw::Pseudo),
        (with(&[("a", "b"), (":path", "/")]), Flaw::Pseudo),
        (section(&[&[("a", "b")], &GET[..]].concat()), Flaw::Pseudo),
        (changed(":method", ""), Flaw::Target),
        (changed(":method", "G T"), Flaw::Target),
        (changed(":method", "CONNECT"), Flaw::Pseudo),
        (changed(":scheme", "HTTPS"), Flaw::Target),
        (changed(":scheme", "ftp"), Flaw::Target),
        (changed(":scheme", ""), Flaw::Target),
        (changed(":path", ""), Flaw::Target),
        (changed(":path", "x"), Flaw::Target),
        (changed(":path", "*"), Flaw::Target),
        (changed(":path", "/a b"), Flaw::Target),
        (changed(":path", "/a#b"), Flaw::Target),
        (changed(":path", "/\u{e4}"), Flaw::Target),
        (changed(":path", "/\r\nx: y"), Flaw::Target),
        (changed(":path", "https://a.test/"), Flaw::Target),
        (changed(":authority", ""), Flaw::Host),
        (changed(":authority", "user@a.test"), Flaw::Host),
        (changed(":authority", "a.test, b.test"), Flaw::Host),
        (changed(":authority", "a.test/"), Flaw::Host),
        (section(&[&GET[..3], &[(":path", &path)]].concat()), Flaw::LongTarget),
        (with(&[("X-A", "b")]), Flaw::Field),
        (with(&[("Content-length", "1")]), Flaw::Field),
        (with(&[("", "b")]), Flaw::Field),
        (with(&[("a b", "c")]), Flaw::Field),
        (with(&[("a:", "c")]), Flaw::Field),
        (with(&[("a", "b\r\nc: d")]), Flaw::Field),
        (with(&[("a", "b\0")]), Flaw::Field),
        (with(&[("a", " b")]), Flaw::Field),
        (with(&[("a", "b\t")]), Flaw::Field),
        (with(&[("connection", "close")]), Flaw::Connection),
        (with(&[("keep-alive", "1")]), Flaw::Connection),
        (with(&[("proxy-connection", "close")]), Flaw::Connection),
        (with(&[("transfer-encoding", "chunked")]), Flaw::Connection),
        (with(&[("upgrade", "websocket")]), Flaw::Connection),
        (with(&[("te", "gzip")]), Flaw::Connection),
        (with(&[("te", "trailers, gzip")]), Flaw::Connection),
        (with(&[("content-length", "")]), Flaw::Length),
        (with(&[("content-length", "+1")]), Flaw::Length),
        (with(&[("content-length", "1, 1")]), Flaw::Length),
        (with(&[("content-length", "1"), ("content-length", "1")]), Flaw::Length),
        (with(&[("content-length", "9999999999999999999")]), Flaw::Length),
        (with(&vec![("a", "b"); FIELDS + 1]), Flaw::ManyFields),
        (with(&vec![("a", "b"); 3 * FIELDS]), Flaw::ManyFields),
        (with(&[("a", &"b".repeat(HEAD_BYTES))]), Flaw::LongHead),
        (with(&vec![("a", ""); HEAD_BYTES / 32]), Flaw::ManyFields),
        (vec![], Flaw::Compression),
        (vec![0], Flaw::Compression),
        (vec![1, 0, 0xc1], Flaw::Compression),       // needs a dynamic table
        (vec![0, 0x80, 0xc1], Flaw::Compression),    // a base below zero
        (vec![0, 0, 0x80], Flaw::Compression),       // a field of the dynamic table
        (vec![0, 0, 0x10], Flaw::Compression),       // and one behind the base
        (vec![0, 0, 0x00, 0], Flaw::Compression),    // a name behind the base
        (vec![0, 0, 0x40, 0], Flaw::Compression),    // a name of the dynamic table
        (vec![0, 0, 0xff, 0x24], Flaw::Compression), // beyond the static table: 99
        (vec![0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Flaw::Compression),
        (vec![0, 0, 0x51, 0x0b, b'/'], Flaw::Compression),
        (vec![0, 0, 0x51, 0x81, 0x00], Flaw::Compression), // no Huffman string
    ];
    for (at, (octets, flaw)) in table.into_iter().enumerate() {
        assert_eq!(head::request(&octets).map(drop), Err(flaw), "row {at}: {octets:x?}");
    }
    assert_eq!(head::trailers(&section(&[(":path", "/")])).err(), Some(Flaw::Pseudo));
    assert_eq!(head::trailers(&section(&[("connection", "x")])).err(), Some(Flaw::Connection));
    // As many as may be.
    assert!(head::request(&with(&vec![("a", "b"); FIELDS])).is_ok());
}

/// What a stream of `octets` that comes in pieces of these sizes brings: its body, its trailers, how it ends.
fn read(octets: &[u8], sizes: &[usize]) -> (Vec<u8>, Option<HeaderMap>, Result<(), Wrong>) {
    let (mut reader, mut body, mut trailers) = (Reader::default(), Vec::new(), None);
    let (mut rest, mut sizes) = (octets, sizes.iter().cycle());
    loop {
        let size = sizes.next().map_or(1, |s| (*s).max(1)).min(rest.len());
        let mut came = Bytes::copy_from_slice(&rest[..size]);
        rest = &rest[size..];
        loop {
            match reader.step(&mut came) {
                Err(wrong) => return (body, trailers, Err(wrong)),
                Ok(Part::Wait) => break,
                Ok(Part::Head(_) | Part::Idle) => {}
                Ok(Part::Data(data)) => body.extend_from_slice(&data),
                Ok(Part::Trailers(fields)) => trailers = Some(fields),
            }
        }
        assert!(came.is_empty());
        if rest.is_empty() {
            return (body, trailers, reader.end());
        }
    }
}

fn ended(parts: &[&[u8]]) -> Result<(), Wrong> {
    let octets = parts.concat();
    let whole = read(&octets, &[usize::MAX]);
    assert_eq!(read(&octets, &[1]), whole, "octet by octet");
    assert_eq!(read(&octets, &[7, 1, 30]), whole, "in pieces");
    whole.2
}

#[test]
fn frames_stand_in_order_or_not_at_all() {
    let head = framed(kind::HEADERS, &with(&[]));
    let post = framed(kind::HEADERS, &with(&[("content-length", "3")]));
    let tail = framed(kind::HEADERS, &section(&[("x-t", "1")]));
    let data = framed(kind::DATA, b"abc");
    let grease = framed(0x21 + 0x1f * 7, b"whatever");
    let connection = |code| Err(Wrong::Fault(Fault::Connection(code)));
    let stream = |code| Err(Wrong::Fault(Fault::Stream(code)));
    assert_eq!(ended(&[&head]), Ok(()));
    assert_eq!(ended(&[&grease, &head, &grease, &data, &grease, &data, &tail, &grease]), Ok(()));
    assert_eq!(ended(&[&post, &data]), Ok(()));
    assert_eq!(ended(&[&post, &data, &tail]), Ok(()));
    let (body, trailers, _) = read(&[&head[..], &data, &data, &tail].concat(), &[2]);
    assert_eq!((body.as_slice(), trailers.unwrap()["x-t"].to_str().unwrap()), (&b"abcabc"[..], "1"));
    assert_eq!(ended(&[]), stream(Code::RequestIncomplete));
    assert_eq!(ended(&[&grease]), stream(Code::RequestIncomplete));
    assert_eq!(ended(&[&head[..4]]), connection(Code::FrameError));
    assert_eq!(ended(&[&head, &data[..3]]), connection(Code::FrameError));
    assert_eq!(ended(&[&head, &[0x40]]), connection(Code::FrameError));
    assert_eq!(ended(&[&data]), connection(Code::FrameUnexpected));
    assert_eq!(ended(&[&head, &tail, &tail]), connection(Code::FrameUnexpected));
    assert_eq!(ended(&[&head, &tail, &data]), connection(Code::FrameUnexpected));
    for kind in [kind::CANCEL_PUSH, kind::SETTINGS, kind::PUSH_PROMISE, kind::GOAWAY, kind::MAX_PUSH_ID, 2, 6, 8, 9] {
        assert_eq!(ended(&[&framed(kind, &[0])]), connection(Code::FrameUnexpected), "{kind}");
        assert_eq!(ended(&[&head, &framed(kind, &[0])]), connection(Code::FrameUnexpected), "{kind}");
    }
    assert_eq!(ended(&[&post]), stream(Code::MessageError), "less than was promised");
    assert_eq!(ended(&[&post, &data[..2]]), connection(Code::FrameError));
    assert_eq!(ended(&[&post, &data, &data]), stream(Code::MessageError), "more than was promised");
    assert_eq!(ended(&[&post, &tail]), stream(Code::MessageError));
    assert_eq!(ended(&[&framed(kind::HEADERS, &with(&[("A", "b")]))]), stream(Code::MessageError));
    assert_eq!(ended(&[&framed(kind::HEADERS, &[0, 0, 0x80])]), connection(Code::QpackDecompressionFailed));
    let mut long = Vec::new();
    frame::put_header(&mut long, kind::HEADERS, HEAD_BYTES + 1);
    assert_eq!(ended(&[&long]), Err(Wrong::TooMuch(Flaw::LongHead)), "before any of it has come");
    let mut unknown = Vec::new();
    frame::put_header(&mut unknown, 0x21, UNKNOWN_BYTES as usize + 1);
    assert_eq!(ended(&[&unknown]), connection(Code::ExcessiveLoad));
}

/// What comes of a control stream of these octets behind its type.
fn heard(octets: &[u8]) -> Result<usize, Code> {
    let hear = |sizes: &[usize]| {
        let (mut control, mut words) = (Control::default(), 0);
        let (mut rest, mut sizes) = (octets, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            rest = behind;
            let mut came = Bytes::copy_from_slice(piece);
            while control.step(&mut came)? != Word::Wait {
                words += 1;
            }
        }
        Ok::<_, Fault>(words)
    };
    let whole = hear(&[usize::MAX]);
    assert_eq!(hear(&[1]), whole, "octet by octet");
    whole.map_err(|fault| match fault {
        Fault::Connection(code) => code,
        Fault::Stream(code) => panic!("{code:?} ends a stream that must not end"),
    })
}

#[test]
fn the_control_stream_is_held_to_its_rules() {
    let settings = framed(kind::SETTINGS, &[0x06, 0x40, 0x64, 0x01, 0x00, 0x21, 0x00]);
    let after = |frame: &[u8]| heard(&[&settings[..], frame].concat());
    assert_eq!(heard(&settings), Ok(1));
    assert_eq!(heard(&framed(kind::SETTINGS, &[])), Ok(1));
    assert_eq!(heard(&hello(32_768)[1..]), Ok(1), "ours too");
    assert_eq!(after(&settings), Err(Code::FrameUnexpected));
    assert_eq!(heard(&framed(kind::GOAWAY, &[0])), Err(Code::MissingSettings));
    assert_eq!(heard(&framed(0x21, &[])), Err(Code::MissingSettings));
    for id in 2..=5 {
        assert_eq!(heard(&framed(kind::SETTINGS, &[id, 0])), Err(Code::SettingsError), "{id}");
    }
    assert_eq!(heard(&framed(kind::SETTINGS, &[6, 0, 6, 0])), Err(Code::SettingsError));
    assert_eq!(heard(&framed(kind::SETTINGS, &[6])), Err(Code::FrameError));
    assert_eq!(heard(&framed(kind::SETTINGS, &[0x40])), Err(Code::FrameError));
    let many: Vec<u8> = (0x21..0x3f).flat_map(|id| [id, 0]).chain((0x40..0x60).flat_map(|id| [0x40, id, 0])).collect();
    assert_eq!(heard(&framed(kind::SETTINGS, &many)), Err(Code::ExcessiveLoad));
    assert_eq!(heard(&framed(kind::SETTINGS, &[0; 1_025])), Err(Code::ExcessiveLoad));
    for kind in [kind::DATA, kind::HEADERS, kind::PUSH_PROMISE, 2, 6, 8, 9] {
        assert_eq!(after(&framed(kind, &[0])), Err(Code::FrameUnexpected), "{kind}");
    }
    assert_eq!(after(&framed(0xf_0700, b"u=3")), Ok(2), "priorities are read past");
    assert_eq!(after(&[framed(kind::MAX_PUSH_ID, &[4]), framed(kind::MAX_PUSH_ID, &[4])].concat()), Ok(3));
    assert_eq!(after(&[framed(kind::MAX_PUSH_ID, &[4]), framed(kind::MAX_PUSH_ID, &[3])].concat()), Err(Code::IdError));
    assert_eq!(after(&[go_away(8), go_away(0)].concat()), Ok(3));
    assert_eq!(after(&[go_away(0), go_away(8)].concat()), Err(Code::IdError));
    assert_eq!(after(&framed(kind::CANCEL_PUSH, &[0])), Err(Code::IdError));
    assert_eq!(after(&framed(kind::GOAWAY, &[])), Err(Code::FrameError));
    assert_eq!(after(&framed(kind::GOAWAY, &[0, 0])), Err(Code::FrameError));
    assert_eq!(after(&framed(kind::GOAWAY, &[0; 9])), Err(Code::FrameError));
}

#[test]
fn qpack_has_nothing_to_say() {
    assert_eq!(encoder_says(&[0x20, 0x20]), Ok(2));
    for octets in [&[0x21][..], &[0x3f, 0xe1, 0x1f], &[0xc0, 1, b'a'], &[0x41, b'a', 1, b'b'], &[0]] {
        assert_eq!(encoder_says(octets), Err(Fault::Connection(Code::QpackEncoderStreamError)), "{octets:x?}");
    }
    let says = |octets: &'static [u8]| {
        let mut says = DecoderSays::default();
        octets.iter().try_fold(0, |n, octet| Ok::<_, Fault>(n + says.take(&mut Bytes::copy_from_slice(&[*octet]))?))
    };
    assert_eq!(says(&[0x40, 0x44, 0x7f, 0x80, 0x01, 0x48]), Ok(4), "streams given up");
    for octets in [&[0x80][..], &[0x01], &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]] {
        assert_eq!(says(octets), Err(Fault::Connection(Code::QpackDecoderStreamError)), "{octets:x?}");
    }
}

#[test]
fn a_response_is_written() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("connection", "close".parse().unwrap());
    headers.append("set-cookie", "a=b".parse().unwrap());
    headers.append("set-cookie", "c=d".parse().unwrap());
    headers.insert("x-long", "y".repeat(300).parse().unwrap());
    let mut out = Vec::new();
    head::put_response(&mut out, StatusCode::NOT_FOUND, &headers, Some(7), b"Thu, 01 Jan 1970 00:00:00 GMT");
    let section = Section::read(&out).unwrap();
    let fields: Vec<_> = section.fields().map(|f| (f.name().to_vec(), f.value().len())).collect();
    let expected: [(&[u8], usize); 7] = [
        (b":status", 3),
        (b"content-type", 16),
        (b"set-cookie", 3),
        (b"set-cookie", 3),
        (b"x-long", 300),
        (b"content-length", 1),
        (b"date", 29),
    ];
    assert_eq!(fields, expected.map(|(name, length)| (name.to_vec(), length)));
}

proptest! {
    #[test]
    fn numbers_come_back(value in 0u64..1 << 62) {
        let mut out = Vec::new();
        frame::put_varint(&mut out, value);
        prop_assert_eq!(frame::varint(&out), Some((value, out.len())));
        prop_assert_eq!(frame::varint(&out[..out.len() - 1]), None);
    }

    #[test]
    fn nothing_panics_and_pieces_do_not_matter(octets in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..20) {
        let whole = read(&octets, &[usize::MAX]);
        prop_assert_eq!(read(&octets, &[size]), whole);
        let _ = head::request(&octets);
    }

    #[test]
    fn fields_come_back(fields in proptest::collection::vec(("[a-z-]{1,20}", "[!-~]{0,200}"), 0..50)) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            headers.append(http::HeaderName::try_from(format!("x{name}")).unwrap(), value.parse().unwrap());
        }
        let mut out = Vec::new();
        head::put_trailers(&mut out, &headers);
        prop_assert_eq!(head::trailers(&out).unwrap(), headers);
    }
}
