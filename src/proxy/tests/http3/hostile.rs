//! Clients that break HTTP/3's rules, octet by octet: each is cut off, and nothing of it reaches a backend.

use super::*;
use crate::wire::h3::Code;

#[tokio::test]
async fn malformed_messages_are_reset_and_never_forwarded() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let get = |more: &[(&str, &str)]| head("GET", "/", more);
    let bare = |fields: &[(&str, &str)]| framed(kind::HEADERS, &section(fields));
    let post = |length: &str, body: &[u8]| {
        [head("POST", "/", &[("content-length", length)]), framed(kind::DATA, body)].concat()
    };
    let trailers = [head("POST", "/", &[]), framed(kind::DATA, b"a"), bare(&[(":path", "/")])].concat();
    let table = [
        (bare(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]), Code::MessageError),
        (bare(&[(":method", "GET"), (":scheme", "https"), (":authority", NAME)]), Code::MessageError),
        (bare(&[(":method", "GET"), (":path", "/"), (":authority", NAME)]), Code::MessageError),
        (bare(&[(":scheme", "https"), (":path", "/"), (":authority", NAME)]), Code::MessageError),
        (get(&[(":path", "/again")]), Code::MessageError),
        (get(&[(":status", "200")]), Code::MessageError),
        (get(&[("X-Upper", "1")]), Code::MessageError),
        (get(&[("connection", "close")]), Code::MessageError),
        (get(&[("transfer-encoding", "chunked")]), Code::MessageError),
        (get(&[("upgrade", "h2c")]), Code::MessageError),
        (get(&[("te", "gzip")]), Code::MessageError),
        (get(&[("a", "b\r\nx: y")]), Code::MessageError),
        (get(&[("a\r\nx", "y")]), Code::MessageError),
        (get(&[("content-length", "1"), ("content-length", "1")]), Code::MessageError),
        (get(&[("content-length", "1")]), Code::MessageError),
        (post("5", b"abc"), Code::MessageError),
        (post("2", b"abc"), Code::MessageError),
        (post("70000", b"abc"), Code::MessageError),
        (trailers, Code::MessageError),
        (head("CONNECT", "/", &[]), Code::MessageError),
        (head("GET", "x", &[]), Code::MessageError),
        (head("GET", "/a b", &[]), Code::MessageError),
        (Vec::new(), Code::RequestIncomplete),
        (framed(0x21, b"grease"), Code::RequestIncomplete),
    ];
    for (at, (octets, code)) in table.into_iter().enumerate() {
        let answer = client.ask(&octets).await;
        assert_eq!(answer.err(), Some(code as u64), "row {at}: {octets:x?}");
    }
    // The connection goes on.
    assert_eq!(client.call(&get(&[])).await.status(), "200");
    let seen: Vec<_> = (0..origin.requests()).map(|at| origin.request(at)).collect();
    assert!(seen.iter().filter(|r| r.method() == Method::GET).count() == 1, "{seen:?}");
}

#[tokio::test]
async fn broken_framing_ends_the_connection() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let get = head("GET", "/", &[]);
    let mut cut = get.clone();
    cut.truncate(10);
    for (octets, code) in [
        (framed(kind::DATA, b"abc"), Code::FrameUnexpected),
        (framed(kind::SETTINGS, &[]), Code::FrameUnexpected),
        (framed(kind::PUSH_PROMISE, &[0]), Code::FrameUnexpected),
        (framed(0x8, &[0, 0, 0, 1]), Code::FrameUnexpected),
        (framed(kind::HEADERS, &[0, 0, 0x80]), Code::QpackDecompressionFailed),
        (framed(kind::HEADERS, &[2, 0, 0x80]), Code::QpackDecompressionFailed),
        ([&get[..], &framed(kind::GOAWAY, &[0])].concat(), Code::FrameUnexpected),
        ([&get[..], &framed(kind::HEADERS, &section(&[])), &framed(kind::DATA, b"a")].concat(), Code::FrameUnexpected),
        (cut, Code::FrameError),
    ] {
        let client = Client::new(&edge, &authority).await;
        let _ = client.ask(&octets).await;
        assert_eq!(client.closed().await, code as u64, "{octets:x?}");
    }
}

#[tokio::test]
async fn streams_of_one_direction_are_held_to_their_rules() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let settings = |octets: &[u8]| [&[0][..], &framed(kind::SETTINGS, octets)].concat();
    for (octets, code) in [
        (settings(&[0x2, 0]), Code::SettingsError),
        (settings(&[0x3, 0]), Code::SettingsError),
        (settings(&[0x4, 0]), Code::SettingsError),
        (settings(&[0x5, 0]), Code::SettingsError),
        (settings(&[0x6, 0, 0x6, 0]), Code::SettingsError),
        ([&settings(&[])[..], &framed(kind::SETTINGS, &[])].concat(), Code::FrameUnexpected),
        ([&settings(&[])[..], &framed(kind::DATA, &[])].concat(), Code::FrameUnexpected),
        ([&settings(&[])[..], &framed(kind::CANCEL_PUSH, &[0])].concat(), Code::IdError),
        ([&[0][..], &framed(kind::GOAWAY, &[0])].concat(), Code::MissingSettings),
        (vec![1, 0], Code::StreamCreationError),
        (vec![2, 0x3f, 0xe1, 0x1f], Code::QpackEncoderStreamError),
        (vec![3, 0x80], Code::QpackDecoderStreamError),
    ] {
        let client = Client::silent(&edge, &authority, &octets).await;
        assert_eq!(client.closed().await, code as u64, "{octets:x?}");
    }
    // Two of a kind.
    let client = Client::new(&edge, &authority).await;
    let mut second = client.connection.open_uni().await.unwrap();
    second.write_all(&hello(0)).await.unwrap();
    assert_eq!(client.closed().await, Code::StreamCreationError as u64);
    // One that may not end.
    let mut client = Client::new(&edge, &authority).await;
    client.control.finish().unwrap();
    assert_eq!(client.closed().await, Code::ClosedCriticalStream as u64);
    // One that means nothing is read past.
    let client = Client::new(&edge, &authority).await;
    let mut grease = client.connection.open_uni().await.unwrap();
    grease.write_all(&[0x21, 1, 2, 3]).await.unwrap();
    let stopped = tokio::time::timeout(PATIENCE, grease.stopped()).await.unwrap().unwrap();
    assert_eq!(stopped.map(VarInt::into_inner), Some(Code::StreamCreationError as u64));
    assert_eq!(client.call(&head("GET", "/", &[])).await.status(), "200");
}
