//! Static files over real sockets: every answer that there is, over both versions, from disk and from memory.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::config::{Coding, Files};

/// A folder with something of everything, and what must not be seen beside it.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let www = dir.path().join("www");
    for folder in ["docs/deep", "empty", ".git", ".well-known"] {
        std::fs::create_dir_all(www.join(folder)).unwrap();
    }
    let text = (0..1_000).map(|i| format!("{i:09}")).collect::<Vec<_>>().join("\n") + "\n";
    for (name, content) in [
        ("index.html", "<p>home"),
        ("docs/index.html", "<p>docs"),
        ("docs/deep/a b.txt", "space"),
        ("numbers.txt", &text),
        ("app.js", "plain()"),
        ("app.js.gz", "gzipped"),
        ("app.js.br", "brotlied"),
        ("nothing", ""),
        (".env", "secret"),
        (".git/config", "secret"),
        (".well-known/security.txt", "mail us"),
        ("404.html", "<p>lost"),
        ("../secret", "secret"),
    ] {
        std::fs::write(www.join(name), content).unwrap();
    }
    symlink("../secret", www.join("leak")).unwrap();
    symlink("numbers.txt", www.join("inner")).unwrap();
    dir
}

fn files(root: &Path) -> Files {
    Files {
        root: root.join("www"),
        index: vec!["index.htm".into(), "index.html".into()],
        preload: false,
        memory: 64 << 20,
        precompressed: vec![Coding::Br, Coding::Gzip],
        cache_control: Some("max-age=60".into()),
        fallback: None,
        not_found: None,
        hidden: false,
    }
}

fn edge(files: Files) -> Edge {
    let mut config = config(&[]);
    config.routes = vec![route("www", "/", Action::Files(Box::new(files)))];
    Edge::new(config)
}

fn asking(path: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = get(path);
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

async fn ask(edge: &Edge, path: &str, fields: &[(&'static str, &str)]) -> Answer {
    edge.http1().await.call(asking(path, fields)).await
}

#[track_caller]
fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn paths_are_files_folders_or_nothing() {
    let dir = tree();
    let edge = edge(files(dir.path()));
    let text = std::fs::read_to_string(dir.path().join("www/numbers.txt")).unwrap();
    for (path, status, body) in [
        ("/", 200, "<p>home"),
        ("/index.html", 200, "<p>home"),
        ("/docs/", 200, "<p>docs"),
        ("/docs", 308, ""),
        ("/docs/deep/a%20b.txt", 200, "space"),
        ("/docs/deep/", 404, "-"),
        ("/empty/", 404, "-"),
        ("/numbers.txt", 200, &text),
        ("/inner", 200, &text),
        ("/numbers.txt/", 404, "-"),
        ("/numbers.txt/x", 404, "-"),
        ("/nothing", 200, ""),
        ("/leak", 404, "-"),
        ("/.env", 404, "-"),
        ("/.git/config", 404, "-"),
        ("/.well-known/security.txt", 200, "mail us"),
        ("/../secret", 400, "-"),
        ("/docs/..%2f..%2fsecret", 400, "-"),
        ("/docs%2Findex.html", 404, "-"),
        ("/a%00b", 400, "-"),
        ("/nowhere", 404, "-"),
    ] {
        let answer = ask(&edge, path, &[]).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(body == "-" || answer.body == body, "{path}: {:?}", answer.body);
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret\n"), "{path}");
    }
    assert_eq!(field(&ask(&edge, "/docs?a=b", &[]).await, "location"), "/docs/?a=b");
    assert_eq!(field(&ask(&edge, "//docs", &[]).await, "location"), "/docs/", "nobody is sent to another host");
    assert_eq!(ask(&edge, "/nowhere", &[]).await.refusal(), (404, "no_file".into()));
    let answer = edge.http1().await.call(post("/", "x")).await;
    assert_eq!((answer.status.as_u16(), field(&answer, "allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn a_file_is_described_and_head_says_the_same_without_it() {
    let dir = tree();
    let edge = edge(files(dir.path()));
    for path in ["/", "/numbers.txt", "/app.js", "/nothing", "/docs", "/nowhere"] {
        let whole = ask(&edge, path, &[]).await;
        let mut caller = edge.http1().await;
        let head = caller.call(request(Method::HEAD, path, "")).await;
        assert_eq!((head.status, &head.body[..]), (whole.status, &b""[..]), "{path}");
        for name in
            ["content-type", "content-length", "etag", "last-modified", "accept-ranges", "vary", "cache-control"]
        {
            // Nobody has to say of HEAD how long nothing is.
            if path != "/nowhere" && (path, name) != ("/docs", "content-length") {
                assert_eq!(field(&head, name), field(&whole, name), "{path}: {name}");
            }
        }
        assert_eq!(caller.call(get("/")).await.body, "<p>home", "the connection goes on");
    }
    let answer = ask(&edge, "/", &[]).await;
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "max-age=60"),
        ("accept-ranges", "bytes"),
        ("vary", "accept-encoding"),
        ("content-length", "7"),
    ] {
        assert_eq!(field(&answer, name), value);
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let dir = tree();
    let edge = edge(files(dir.path()));
    let first = ask(&edge, "/numbers.txt", &[]).await;
    let (etag, modified) = (field(&first, "etag").to_owned(), field(&first, "last-modified").to_owned());
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (vec![("if-none-match", &*etag)], 304),
        (vec![("if-none-match", "\"x\"")], 200),
        (vec![("if-modified-since", &modified)], 304),
        (vec![("if-modified-since", old)], 200),
        (vec![("if-match", "\"x\"")], 412),
        (vec![("if-match", &etag)], 200),
        (vec![("if-unmodified-since", old)], 412),
        (vec![("range", "bytes=0-9"), ("if-range", &etag)], 206),
        (vec![("range", "bytes=0-9"), ("if-range", "\"x\"")], 200),
        (vec![("range", "bytes=0-9"), ("if-none-match", &etag)], 304),
        (vec![("range", "bytes=20000-")], 416),
    ] {
        let mut caller = edge.http1().await;
        let answer = caller.call(asking("/numbers.txt", &fields)).await;
        assert_eq!(answer.status, status, "{fields:?}");
        assert_eq!(field(&answer, "etag") == etag, status < 400, "{fields:?}");
        assert_eq!(answer.body.is_empty(), !matches!(status, 200 | 206));
        if status == 416 {
            assert_eq!(field(&answer, "content-range"), "bytes */10000");
        }
        assert_eq!(caller.call(get("/")).await.status, 200, "the connection goes on after {status}");
    }
}

#[tokio::test]
async fn parts_are_those_of_the_file() {
    let dir = tree();
    let whole = std::fs::read(dir.path().join("www/numbers.txt")).unwrap();
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(dir.path().join("www/large"), &large).unwrap();
    let edge = edge(files(dir.path()));
    for (path, whole) in [("/numbers.txt", &whole), ("/large", &large)] {
        let length = whole.len();
        for (range, first, last) in [
            ("bytes=0-0".to_owned(), 0, 0),
            ("bytes=-1".to_owned(), length - 1, length - 1),
            ("bytes=100-".to_owned(), 100, length - 1),
            (format!("bytes=5-{}", length * 2), 5, length - 1),
            ("bytes=0-99,50-200".to_owned(), 0, 200),
        ] {
            let answer = ask(&edge, path, &[("range", &range)]).await;
            assert_eq!(answer.status, 206, "{range}");
            assert_eq!(field(&answer, "content-range"), format!("bytes {first}-{last}/{length}"));
            assert_eq!(answer.body, whole[first..=last], "{path} {range}");
        }
        let answer = ask(&edge, path, &[("range", "bytes=0-4,1000-1004, -5")]).await;
        let boundary = field(&answer, "content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
        let part = |first: usize, last: usize| {
            let kind = if path == "/large" { "application/octet-stream" } else { "text/plain; charset=utf-8" };
            let head = format!(
                "\r\n--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: bytes {first}-{last}/{length}\r\n\r\n"
            );
            [head.as_bytes(), &whole[first..=last]].concat()
        };
        let parts = [part(0, 4), part(1_000, 1_004), part(length - 5, length - 1)].concat();
        assert_eq!(answer.body, [&parts[..], format!("\r\n--{boundary}--\r\n").as_bytes()].concat());
        assert_eq!(ask(&edge, path, &[]).await.body, whole[..]);
    }
}

#[tokio::test]
async fn a_file_goes_out_in_the_coding_that_is_liked_best() {
    let dir = tree();
    let edge = edge(files(dir.path()));
    let mut etags = std::collections::BTreeSet::new();
    for (accept, coding, body) in [
        ("br, gzip", "br", "brotlied"),
        ("gzip", "gzip", "gzipped"),
        ("zstd", "", "plain()"),
        ("br;q=0.1, gzip", "gzip", "gzipped"),
    ] {
        let answer = ask(&edge, "/app.js", &[("accept-encoding", accept)]).await;
        assert_eq!((field(&answer, "content-encoding"), &answer.body[..]), (coding, body.as_bytes()), "{accept}");
        assert_eq!(field(&answer, "content-type"), "text/javascript; charset=utf-8");
        etags.insert(field(&answer, "etag").to_owned());
    }
    assert_eq!(etags.len(), 3, "what differs has another tag");
    assert_eq!(ask(&edge, "/numbers.txt", &[("accept-encoding", "br")]).await.body.len(), 10_000);
}

#[tokio::test]
async fn what_is_missing_may_have_a_page_or_a_stand_in() {
    let dir = tree();
    let with_page = edge(Files { not_found: Some("404.html".into()), ..files(dir.path()) });
    let answer = ask(&with_page, "/nowhere", &[("range", "bytes=0-1"), ("if-none-match", "*")]).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..], field(&answer, "cache-control")), (404, &b"<p>lost"[..], ""));
    let single_page = edge(Files { fallback: Some("index.html".into()), ..files(dir.path()) });
    for path in ["/some/where", "/.git/config", "/leak"] {
        let answer = ask(&single_page, path, &[]).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"<p>home"[..]), "{path}");
    }
}

#[tokio::test]
async fn a_prefix_is_not_part_of_the_name() {
    let dir = tree();
    let mut config = config(&[]);
    config.routes = vec![route("www", "/static", Action::Files(Box::new(files(dir.path()))))];
    let edge = Edge::new(config);
    for (path, status) in
        [("/static/docs/", 200), ("/static/", 200), ("/static", 308), ("/static/static/", 404), ("/docs/", 404)]
    {
        assert_eq!(ask(&edge, path, &[]).await.status, status, "{path}");
    }
    assert_eq!(field(&ask(&edge, "/static", &[]).await, "location"), "/static/");
}

#[tokio::test]
async fn http2_has_the_same_files() {
    let dir = tree();
    std::fs::write(dir.path().join("www/large"), vec![b'x'; 1_000_000]).unwrap();
    let edge = edge(files(dir.path()));
    let io = TokioIo::new(edge.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let _task = task::spawn("h2 client", async { drop(connection.await) });
    for (method, path, status, length, octets) in [
        (Method::GET, "/large", 200, "1000000", 1_000_000),
        (Method::HEAD, "/large", 200, "1000000", 0),
        (Method::GET, "/docs/", 200, "7", 7),
        (Method::GET, "/nowhere", 404, "", 100),
    ] {
        let mut asked = request(method, &format!("http://example.test{path}"), "");
        asked.headers_mut().remove("host");
        sender.ready().await.unwrap();
        let answer = Answer::of(sender.send_request(asked).await.unwrap()).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(length.is_empty() || field(&answer, "content-length") == length, "{path}");
        assert!(answer.body.len() >= octets, "{path}");
    }
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_sent_is_not_taken_for_whole() {
    const LENGTH: u64 = 64 << 20;
    let dir = tree();
    let file = std::fs::File::create(dir.path().join("www/large")).unwrap();
    file.set_len(LENGTH).unwrap();
    let edge = edge(files(dir.path()));
    let mut tcp = edge.connect().await;
    tcp.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_head(&mut tcp).await.contains(&format!("content-length: {LENGTH}\r\n")));
    file.set_len(LENGTH - 1).unwrap();
    let (mut octets, mut read) = (vec![0; 1 << 20], 0);
    while let Ok(n @ 1..) = tokio::time::timeout(PATIENCE, tcp.read(&mut octets)).await.unwrap() {
        read += n as u64;
    }
    assert!(read < LENGTH, "{read} octets of {LENGTH}, and it has ended");
    // What is there now is whole again.
    assert_eq!(ask(&edge, "/large", &[]).await.body.len() as u64, LENGTH - 1);
}

#[tokio::test]
async fn files_in_memory_are_those_on_disk_a_moment_later() {
    let dir = tree();
    let kept = edge(Files { preload: true, ..files(dir.path()) });
    let read = edge(files(dir.path()));
    let table = [
        "/",
        "/docs",
        "/docs/",
        "/numbers.txt",
        "/app.js",
        "/inner",
        "/leak",
        "/.env",
        "/nowhere",
        "/nothing",
        "/empty/",
    ];
    let same = async |what: &str| {
        for path in table {
            for fields in [&[][..], &[("range", "bytes=3-8")], &[("accept-encoding", "br")]] {
                let (kept, read) = (ask(&kept, path, fields).await, ask(&read, path, fields).await);
                assert_eq!(kept.status, read.status, "{what}: {path} {fields:?}");
                if kept.status.is_success() {
                    assert_eq!(kept.body, read.body, "{what}: {path} {fields:?}");
                }
            }
        }
    };
    same("at once").await;
    // A tag of its content tells that it comes from memory.
    let tag_of = async |path: &str| field(&ask(&kept, path, &[]).await, "etag").to_owned();
    let mut tries = 0;
    while tag_of("/").await.contains('-') {
        tries += 1;
        assert!(tries < 2_000, "never in memory");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    same("in memory").await;
    std::fs::write(dir.path().join("www/index.html"), "<p>a new home").unwrap();
    std::fs::remove_file(dir.path().join("www/nothing")).unwrap();
    tries = 0;
    while ask(&kept, "/", &[]).await.body != "<p>a new home" || ask(&kept, "/nothing", &[]).await.status != 404 {
        tries += 1;
        assert!(tries < 2_000, "never looked at again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    same("after a change").await;
}
