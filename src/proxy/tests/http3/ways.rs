//! What holds over every version of HTTP, and the limits of a connection.

use super::*;
use crate::config::Protocol;
use crate::control::event::Event;
use crate::wire::h3::Code;

#[tokio::test]
async fn the_same_request_reaches_the_backend_as_the_same_message() {
    let (authority, origin) = (Authority::new(), echo().await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let fields = [("accept", "text/plain"), ("cookie", "a=b"), ("content-length", "3")];
    let over_h3 = [head("POST", "/a/./b?c", &fields), framed(kind::DATA, b"abc")].concat();
    assert_eq!(client.call(&over_h3).await.body, b"abc");
    let over_tcp = |target: &str| {
        let mut request = Request::post(target);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        request.body(stage::full("abc")).unwrap()
    };
    let tls = authority.connect(&edge, NAME, Protocol::Http2).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let _h2 = task::spawn("client", async { drop(connection.await) });
    let request = over_tcp(&format!("https://{NAME}/a/./b?c"));
    assert_eq!(Answer::of(sender.send_request(request).await.unwrap()).await.body, "abc");
    let tls = authority.connect(&edge, NAME, Protocol::Http1).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    let _h1 = task::spawn("client", async { drop(connection.await) });
    let mut request = over_tcp("/a/./b?c");
    request.headers_mut().insert("host", HeaderValue::from_static(NAME));
    assert_eq!(Answer::of(sender.send_request(request).await.unwrap()).await.body, "abc");
    let seen = [0, 1, 2].map(|at| {
        let request = origin.request(at);
        let mut headers = request.headers().clone();
        // What differs from request to request, and what says how it came.
        for name in ["x-request-id", "x-deadline-ms"] {
            headers.remove(name);
        }
        let via = headers.remove("via").unwrap();
        ((request.method().clone(), request.uri().clone(), headers), via)
    });
    assert_eq!(seen[0].0, seen[1].0, "as over HTTP/2");
    assert_eq!(seen[0].0, seen[2].0, "as over HTTP/1.1");
    assert_eq!(seen.map(|s| s.1), ["3 springtide", "2 springtide", "1.1 springtide"]);
}

#[tokio::test]
async fn trailers_pass_both_ways_and_a_body_may_wait_to_be_asked_for() {
    let authority = Authority::new();
    let origin = Origin::new(|r| async move { Response::new(r.into_body().map_err(Into::into).boxed_unsync()) }).await;
    let edge = edge(&authority, &[origin.address], |config| config.services[0].protocol = Protocol::Http2);
    let client = Client::new(&edge, &authority).await;
    let tail = framed(kind::HEADERS, &section(&[("grpc-status", "0"), ("content-length", "9")]));
    let octets = [head("POST", "/", &[("te", "trailers")]), framed(kind::DATA, b"abc"), tail].concat();
    let reply = client.call(&octets).await;
    assert_eq!((reply.status(), reply.body.as_slice(), reply.heads.len()), ("200", &b"abc"[..], 2));
    assert_eq!(reply.heads[1]["grpc-status"], "0");
    assert!(!reply.heads[1].contains_key("content-length"), "what may not stand there is gone");
    let (mut send, mut receive) = client.begin(&head("POST", "/", &[("expect", "100-continue")])).await;
    let first = tokio::time::timeout(PATIENCE, receive.read_chunk(1 << 10, true)).await.unwrap().unwrap().unwrap();
    let (mut frames, mut interim) = (Frames::default(), Reply { heads: Vec::new(), body: Vec::new() });
    take(&mut frames, first.bytes, &mut interim);
    assert_eq!(interim.status(), "100");
    send.write_all(&framed(kind::DATA, b"asked")).await.unwrap();
    send.finish().unwrap();
    let reply = read(receive).await.unwrap();
    assert_eq!((reply.status(), reply.body.as_slice()), ("200", &b"asked"[..]));
    let reply = client.call(&head("HEAD", "/", &[])).await;
    assert_eq!((reply.status(), reply.body.len()), ("200", 0));
}

#[tokio::test]
async fn who_gives_up_is_not_worked_for() {
    let (authority, origin) = (Authority::new(), Origin::silent().await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let (mut send, mut receive) = client.begin(&head("GET", "/", &[])).await;
    send.finish().unwrap();
    let load = edge.load(0);
    eventually("the request is under way", || load.in_flight() == 1).await;
    receive.stop(VarInt::from_u32(Code::RequestCancelled as u32)).unwrap();
    eventually("nobody waits for it", || load.in_flight() == 0).await;
    // The same in the middle of a body.
    let body = [head("POST", "/", &[("content-length", "100000")]), framed(kind::DATA, b"abc")].concat();
    let (mut send, mut receive) = client.begin(&body).await;
    eventually("the other is under way", || load.in_flight() == 1).await;
    let code = VarInt::from_u32(Code::RequestCancelled as u32);
    send.reset(code).unwrap();
    receive.stop(code).unwrap();
    eventually("nobody waits for that either", || load.in_flight() == 0).await;
    assert!(client.connection.close_reason().is_none());
}

#[tokio::test]
async fn what_breaks_off_is_not_taken_for_a_whole() {
    let authority = Authority::new();
    let cuts = [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
    ];
    for cut in cuts {
        let (told, heard) = tokio::sync::watch::channel(false);
        let origin = Origin::raw(move |mut tcp| {
            let mut heard = heard.clone();
            async move {
                read_head(&mut tcp).await;
                let _ = tcp.write_all(cut).await;
                let _ = heard.wait_for(|&it_is_there| it_is_there).await;
            }
        })
        .await;
        let edge = edge(&authority, &[origin.address], |_| ());
        let client = Client::new(&edge, &authority).await;
        let (mut send, mut receive) = client.begin(&head("GET", "/", &[])).await;
        send.finish().unwrap();
        let first = tokio::time::timeout(PATIENCE, receive.read_chunk(1 << 10, true)).await.unwrap().unwrap();
        assert!(first.is_some(), "the response has begun");
        told.send(true).unwrap();
        let ended = read(receive).await.map(|reply| reply.body.len());
        assert_eq!(ended, Err(Code::InternalError as u64), "{}", cut.escape_ascii());
    }
}

#[tokio::test]
async fn nobody_sends_faster_than_the_other_takes() {
    let authority = Authority::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::raw(move |mut tcp| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut tcp).await;
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while tcp.write_all(&[b'x'; 10_000]).await.is_ok() {
                count.fetch_add(10_000, SeqCst);
            }
        }
    })
    .await;
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let (mut send, _receive) = client.begin(&head("GET", "/", &[])).await;
    send.finish().unwrap();
    // Until nothing has moved for a while, and that well below what would be sent in that time.
    let (mut before, mut calm) = (0, 0);
    eventually("it stands still", || {
        let now = sent.load(SeqCst);
        calm = if now > 0 && now == before { calm + 1 } else { 0 };
        before = now;
        calm > 100
    })
    .await;
    assert!(before < 32 << 20, "{before} octets for a client that reads nothing");
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused_in_words() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let (long, path) = ("a".repeat(40_000), format!("/{}", "a".repeat(10_000)));
    for (octets, status) in [
        (head("GET", "/", &[("x-long", &long)]), "431"),
        (head("GET", "/", &[("a", "b"); 101]), "431"),
        (head("GET", &path, &[]), "414"),
    ] {
        assert_eq!(client.call(&octets).await.status(), status);
    }
    assert_eq!(client.call(&head("GET", "/", &[])).await.status(), "200");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_makes_work_for_nothing_ends_the_connection() {
    let (authority, origin) = (Authority::new(), Origin::silent().await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let (mut send, _receive) = client.begin(&head("POST", "/", &[])).await;
    let _ = send.write_all(&framed(0x21, b"").repeat(2_000)).await;
    assert_eq!(client.closed().await, Code::ExcessiveLoad as u64, "frames that say nothing");
    let client = Client::new(&edge, &authority).await;
    let code = VarInt::from_u32(Code::RequestCancelled as u32);
    let get = head("GET", "/", &[]);
    for _ in 0..2_000 {
        let Ok((mut send, mut receive)) = client.connection.open_bi().await else { break };
        if send.write_all(&get).await.is_err() {
            break;
        }
        let _ = (send.reset(code), receive.stop(code));
    }
    assert_eq!(client.closed().await, Code::ExcessiveLoad as u64, "rapid resets");
    let load = edge.load(0);
    eventually("nothing of it is left", || load.in_flight() == 0).await;
}

#[tokio::test]
async fn running_requests_finish_and_the_client_is_told_to_go() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let origin = Origin::new(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            Response::new(stage::full("done"))
        }
    })
    .await;
    let authority = Authority::new();
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let (mut send, receive) = client.begin(&head("GET", "/", &[])).await;
    send.finish().unwrap();
    let load = edge.load(0);
    eventually("the request is under way", || load.in_flight() == 1).await;
    edge.shutdown.cancel();
    let mut control = tokio::time::timeout(PATIENCE, client.connection.accept_uni()).await.unwrap().unwrap();
    let mut said = Vec::new();
    let goodbye = framed(kind::GOAWAY, &[4]);
    while !said.ends_with(&goodbye) {
        let chunk = tokio::time::timeout(PATIENCE, control.read_chunk(1_000, true)).await.unwrap().unwrap().unwrap();
        said.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(client.ask(&head("GET", "/", &[])).await.err(), Some(Code::RequestRejected as u64));
    gate.notify_one();
    let reply = read(receive).await.unwrap();
    assert_eq!((reply.status(), reply.body.as_slice()), ("200", &b"done"[..]));
    assert_eq!(client.closed().await, Code::NoError as u64);
    tokio::time::timeout(PATIENCE, edge.server.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_changes_its_address_stays_with_its_worker() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |config| config.node.workers = 3);
    for _ in 0..4 {
        let client = Client::new(&edge, &authority).await;
        for _ in 0..4 {
            assert_eq!(client.call(&head("GET", "/", &[])).await.status(), "200");
            client.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn responses_over_tcp_tell_of_it_until_it_is_turned_off() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let told = async || {
        let tls = authority.connect(&edge, NAME, Protocol::Http1).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        let _task = task::spawn("client", async { drop(connection.await) });
        let answer = Answer::of(sender.send_request(get("/")).await.unwrap()).await;
        answer.headers.get("alt-svc").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(told().await, Some(format!("h3=\":{}\"; ma=86400", edge.address.port())));
    let before = Arc::clone(&edge.published.full().topology);
    let mut config = (*before.config).clone();
    config.listeners[0].http3 = Some(Http3 { advertise: false, ..Http3::default() });
    let assets = Assets { terms: before.assets.terms.clone(), ..Assets::default() };
    edge.step(Event::Reload(Box::new(Topology::build(Arc::new(config), assets, Some(&before)))));
    assert_eq!(told().await.as_deref(), Some("clear"));
}
