//! A browser talks WebSocket over HTTP/2: a page of ours over TLS opens one to its own host, where the edge has announced that it
//! knows how (RFC 8441), and the backend speaks HTTP/1.1.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use springtide::wire::websocket;

use crate::clients::Browser;
use crate::support::Node;

/// A backend that agrees to WebSocket and answers the first message with its own, turned round; heads that it has seen,
/// and the second message.
fn echo() -> (SocketAddr, Arc<Mutex<Vec<String>>>, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let (log, (tell, told)) = (Arc::clone(&seen), channel());
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let (log, tell) = (Arc::clone(&log), tell.clone());
            std::thread::spawn(move || talk(tcp, &log, &tell));
        }
    });
    (address, seen, told)
}

fn talk(mut tcp: TcpStream, log: &Mutex<Vec<String>>, tell: &Sender<String>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|l| l.strip_prefix("sec-websocket-key: "))?.to_owned();
    log.lock().unwrap().push(head);
    let accept = websocket::accept(key.as_bytes());
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    tcp.write_all(agreed.as_bytes()).ok()?;
    let mut text = hear(&mut tcp)?;
    text.reverse();
    tcp.write_all(&[&[0x81, text.len() as u8][..], &text].concat()).ok()?;
    tell.send(String::from_utf8_lossy(&hear(&mut tcp)?).into_owned()).ok()?;
    tcp.read_to_end(&mut Vec::new()).ok().map(drop)
}

/// One short text frame of a client: masked (RFC 6455 section 5.2).
fn hear(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = [0; 6];
    tcp.read_exact(&mut frame).ok()?;
    let mut text = vec![0; usize::from(frame[1] & 127)];
    tcp.read_exact(&mut text).ok()?;
    text.iter_mut().zip(frame[2..].iter().cycle()).for_each(|(b, mask)| *b ^= mask);
    Some(text)
}

#[test]
fn a_browser_opens_a_websocket_over_http2() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, seen, told) = echo();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::create_dir(dir.path().join("www")).unwrap();
    let page = "<!doctype html><body>waiting<script>\
        const socket = new WebSocket(`wss://${location.host}/chat`);\
        socket.onopen = () => socket.send('drow');\
        socket.onmessage = (m) => socket.send(m.data);\
        </script>";
    fs::write(dir.path().join("www/index.html"), page).unwrap();
    let text = format!(
        "[node]\nname = \"edge\"\nworkers = 1\n\n[[datacenter]]\nname = \"here\"\n\n\
         [[service]]\nname = \"chat\"\nbackends.here = [\"{backend}\"]\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\ntls = {{ certs = [\"cert.pem\"], keys = [\"key.pem\"] }}\n\n\
         [[route]]\nmatch = {{ path = \"/chat\" }}\nservice = \"chat\"\n\n[[route]]\nfiles = {{ root = \"www\" }}\n"
    );
    let path = dir.path().join("edge.toml");
    fs::write(&path, text).unwrap();
    let node = Node::start(&path);
    let url = format!("https://localhost:{}/", node.http("public").port());
    let browser = Browser::show(&dir.path().join("profile"), &url);
    let heard = told.recv_timeout(Duration::from_secs(30));
    drop(browser);
    assert_eq!(heard.as_deref(), Ok("word"), "{:?}\n{}", seen.lock().unwrap(), node.log());
    let heads = seen.lock().unwrap();
    assert!(heads.iter().all(|head| head.contains("via: 2 springtide")), "over HTTP/2: {heads:?}");
}
