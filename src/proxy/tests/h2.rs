//! HTTP/2 by hand, as nobody honest speaks it: floods of every kind are cut, and who is honest beside them notices nothing.

use super::*;
use crate::config::Http2;
use crate::wire::h2::{PREFACE, error, flag, kind};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// The head of a GET of `/` at `a`, from the static table (RFC 7541 appendix A).
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'a'];
/// The same of a POST.
const POST: &[u8] = &[0x83, 0x84, 0x86, 0x41, 1, b'a'];

fn open(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, GET)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// What a connection was told before it ended.
#[derive(Debug, Default)]
struct End {
    /// Errors of GOAWAY frames.
    goaways: Vec<u32>,
    /// Streams with a whole response, and streams that were reset.
    answered: usize,
    reset: usize,
}

/// A client that sends what it likes.
struct Rogue {
    tcp: TcpStream,
    octets: Vec<u8>,
    end: End,
}

impl Rogue {
    async fn to(edge: &Edge, settings: &[u8]) -> Self {
        let mut tcp = edge.connect().await;
        tcp.write_all(PREFACE).await.unwrap();
        tcp.write_all(&frame(kind::SETTINGS, 0, 0, settings)).await.unwrap();
        Self { tcp, octets: Vec::new(), end: End::default() }
    }

    /// Sends `flood` of each number in turn until the other side has had enough, reading what it says. How many that were.
    async fn flood(&mut self, mut flood: impl FnMut(u32) -> Vec<u8>) -> u32 {
        let flooding = async {
            for n in 0..200_000 {
                if self.tcp.write_all(&flood(n)).await.is_err() || !self.listen(true).await {
                    return n;
                }
            }
            u32::MAX
        };
        let sent = tokio::time::timeout(PATIENCE, flooding).await.unwrap();
        while self.listen(false).await {}
        sent
    }

    /// Reads what there is, or waits for some. False: nothing more comes.
    async fn listen(&mut self, only_what_is_there: bool) -> bool {
        let mut bytes = [0; 1_024];
        let read = if only_what_is_there {
            tokio::task::yield_now().await;
            match self.tcp.try_read(&mut bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return true,
                read => read,
            }
        } else {
            tokio::time::timeout(PATIENCE, self.tcp.read(&mut bytes)).await.unwrap()
        };
        let Ok(read @ 1..) = read else { return false };
        self.octets.extend(&bytes[..read]);
        while let Some((head, rest)) = self.octets.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(payload) = rest.get(..length) else { break };
            match head[3] {
                kind::GOAWAY => self.end.goaways.push(u32::from_be_bytes(*payload[4..].first_chunk().unwrap())),
                kind::DATA if head[4] & flag::END_STREAM != 0 => self.end.answered += 1,
                kind::RST_STREAM => self.end.reset += 1,
                _ => {}
            }
            self.octets.drain(..9 + length);
        }
        true
    }
}

/// An edge whose clients may cause a hundred glitches.
async fn strict() -> (Edge, Origin) {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.listeners[0].http2.glitches = 100;
    (Edge::new(config), origin)
}

/// A client beside, who asks for one thing after the other until told to stop, and is answered each time.
async fn honest(edge: &Edge, until: CancellationToken) {
    let io = TokioIo::new(edge.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let _task = task::spawn("honest client", async { drop(connection.await) });
    let mut answered = 0;
    while !until.is_cancelled() || answered < 10 {
        let mut request = get("http://example.test/");
        request.headers_mut().remove("host");
        sender.ready().await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(Answer::of(answer).await.body, "ok");
        answered += 1;
    }
}

#[tokio::test]
async fn floods_are_cut_and_who_is_honest_beside_them_is_served() {
    type Flood = fn(u32) -> Vec<u8>;
    let floods: [(&str, Flood); 12] = [
        ("rapid reset", |n| [open(1 + 2 * n), reset(1 + 2 * n)].concat()),
        ("resets of nothing", |n| if n == 0 { open(1) } else { reset(1) }),
        ("a head without end", |n| match n {
            0 => frame(kind::HEADERS, flag::END_STREAM, 1, GET),
            _ => frame(kind::CONTINUATION, 0, 1, b"\0\x01a\x01b"),
        }),
        ("a head of nothing, without end", |n| match n {
            0 => frame(kind::HEADERS, flag::END_STREAM, 1, GET),
            _ => frame(kind::CONTINUATION, 0, 1, b""),
        }),
        ("settings", |_| frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("acknowledgements", |_| frame(kind::SETTINGS, flag::ACK, 0, b"")),
        ("pings", |_| frame(kind::PING, 0, 0, b"12345678")),
        ("pongs", |_| frame(kind::PING, flag::ACK, 0, b"12345678")),
        ("priorities", |n| frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3 + (n % 2) as u8, 16])),
        ("windows", |_| frame(kind::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("bodies of nothing", |n| match n {
            0 => frame(kind::HEADERS, flag::END_HEADERS, 1, POST),
            _ => frame(kind::DATA, 0, 1, b""),
        }),
        ("frames that nobody knows", |_| frame(0x77, 0, 0, b"?")),
    ];
    let (edge, _origin) = strict().await;
    let over = CancellationToken::new();
    let flooding = async {
        for (name, flood) in floods {
            let mut rogue = Rogue::to(&edge, &[]).await;
            // Whatever was on its way was sent before the end could be seen.
            assert!(rogue.flood(flood).await < u32::MAX, "{name}: never cut");
            let said: Vec<u32> = rogue.end.goaways.iter().copied().filter(|e| *e != 0).collect();
            // Some are against the rules as well, and hyper may be the first to see it.
            let is_meant = |e: &u32| [error::ENHANCE_YOUR_CALM, error::PROTOCOL_ERROR].contains(e);
            assert!(said.iter().all(is_meant), "{name}: {said:?}");
        }
        over.cancel();
    };
    tokio::join!(honest(&edge, over.clone()), flooding);
}

#[tokio::test]
async fn streams_that_we_are_made_to_reset_are_counted() {
    let (edge, _origin) = strict().await;
    let mut rogue = Rogue::to(&edge, &[]).await;
    // Each request is sound, and what follows makes us reset it (CVE-2025-8671): more room than there can be. One at a time:
    // how many are on their way before anybody looks is the kernel's affair.
    let mut sent = 0;
    loop {
        let stream = 1 + 2 * sent;
        let provoking = [open(stream), frame(kind::WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes())].concat();
        if rogue.tcp.write_all(&provoking).await.is_err() {
            break;
        }
        sent += 1;
        let before = rogue.end.reset + rogue.end.answered;
        while rogue.end.reset + rogue.end.answered == before && rogue.listen(false).await {}
        if rogue.end.reset + rogue.end.answered == before {
            break;
        }
    }
    // Five of a hundred glitches each; a sound one behind it would have been answered.
    assert!((10..=40).contains(&sent), "{sent}: {:?}", rogue.end);
}

#[tokio::test]
async fn a_client_has_so_many_requests_and_all_of_them_are_answered() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.listeners[0].http2 = Http2 { total_streams: 50, ..Http2::default() };
    let edge = Edge::new(config);
    let mut rogue = Rogue::to(&edge, &[]).await;
    for n in 0..50 {
        rogue.tcp.write_all(&open(1 + 2 * n)).await.unwrap();
    }
    // It says so at once, and says nothing of an error.
    while rogue.end.answered < 50 || rogue.end.goaways.is_empty() {
        assert!(rogue.listen(false).await, "{:?}", rogue.end);
    }
    assert!(rogue.end.goaways.iter().all(|e| *e == 0), "{:?}", rogue.end);
}

#[tokio::test]
async fn more_at_a_time_than_is_allowed_is_refused() {
    let origin = Origin::silent().await;
    let mut config = config(&[origin.address]);
    config.listeners[0].http2.streams = 3;
    let edge = Edge::new(config);
    let mut rogue = Rogue::to(&edge, &[]).await;
    for n in 0..4 {
        rogue.tcp.write_all(&open(1 + 2 * n)).await.unwrap();
    }
    let load = edge.load(0);
    eventually("three are under way", || load.in_flight() == 3).await;
    let mut bytes = Vec::new();
    let refused = [&frame(kind::RST_STREAM, 0, 7, &error::REFUSED_STREAM.to_be_bytes())[..]].concat();
    let waiting = async {
        while !bytes.windows(refused.len()).any(|w| w == refused) {
            bytes.push(rogue.tcp.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn a_small_head_that_means_a_large_one_is_refused_unread() {
    let (edge, origin) = strict().await;
    // The status in Huffman's code, and GOAWAY for ENHANCE_YOUR_CALM.
    let is_431 = |said: &[u8]| said.windows(3).any(|w| w == [0x69, 0x90, 0xff]);
    let is_goaway = |said: &[u8]| said.windows(8).any(|w| w == [0, 0, 0, 0, 0, 0, 0, 0xb]);
    // One field of 4,000 octets goes to the table, and is then named again, an octet each time: 80 kB, 4 MB.
    for (names, is_meant) in [(20, is_431 as fn(&[u8]) -> bool), (1_000, is_goaway)] {
        let mut rogue = Rogue::to(&edge, &[]).await;
        let mut head = GET.to_vec();
        head.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        head.extend([b'y'; 4_000]);
        head.extend(std::iter::repeat_n(0xbe, names));
        rogue.tcp.write_all(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &head)).await.unwrap();
        let mut said = Vec::new();
        let waiting = async {
            while !is_meant(&said) {
                said.push(rogue.tcp.read_u8().await.unwrap());
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{names}: {said:x?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_client_without_room_is_seen_by_the_sweep() {
    let origin = Origin::new(|_| async { Response::new(stage::full(vec![b'x'; 100_000])) }).await;
    let edge = Edge::new(config(&[origin.address]));
    // No room at all, then one octet at a time: the sweep cuts it after half a minute (drain::tests), others go on.
    let mut rogue = Rogue::to(&edge, &[0, 4, 0, 0, 0, 0]).await;
    rogue.tcp.write_all(&open(1)).await.unwrap();
    for _ in 0..20 {
        rogue.tcp.write_all(&frame(kind::WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes())).await.unwrap();
    }
    let io = TokioIo::new(edge.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let _task = task::spawn("honest client", async { drop(connection.await) });
    let mut request = get("http://example.test/");
    request.headers_mut().remove("host");
    assert_eq!(Answer::of(sender.send_request(request).await.unwrap()).await.body.len(), 100_000);
    // Room for all of it, and it comes.
    for stream in [0, 1] {
        rogue.tcp.write_all(&frame(kind::WINDOW_UPDATE, 0, stream, &200_000u32.to_be_bytes())).await.unwrap();
    }
    while rogue.end.answered == 0 {
        assert!(rogue.listen(false).await, "{:?}", rogue.end);
    }
}
