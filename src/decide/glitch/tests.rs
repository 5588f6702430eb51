//! Floods of every kind, honest clients of every kind, and the count of streams without room.

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms { glitches: 1_000, streams: 1_000_000 };

fn frame(kind: u8, flags: u8, stream: u32, length: u32, word: u32) -> Seen {
    Seen::Frame(Frame { kind, flags, stream, length, word })
}

fn ms(millis: u64) -> Mono {
    Mono::from_millis(1_000 + millis)
}

/// A request on `stream`, answered whole.
fn exchange(account: &mut Account, stream: u32, now: Mono) {
    assert_eq!(account.heard(frame(kind::HEADERS, 5, stream, 40, 0), now), None);
    account.said(frame(kind::HEADERS, 4, stream, 20, 0), now);
    account.said(frame(kind::DATA, 1, stream, 1_000, 0), now);
}

/// How many of `sent` it takes until a connection is asked to leave, and until it is cut.
fn limits(sent: &[Seen], each_ms: u64) -> (Option<u32>, Option<u32>) {
    let mut account = Account::new(TERMS, ms(0));
    exchange(&mut account, 1, ms(0));
    let (mut leave, mut cut) = (None, None);
    for n in 1..=100_000 {
        for seen in sent {
            // What opens a stream opens another one each time.
            let seen = match *seen {
                Seen::Frame(f) if f.stream == 3 => Seen::Frame(Frame { stream: 1 + 2 * n, ..f }),
                other => other,
            };
            account.heard(seen, ms(u64::from(n) * each_ms));
        }
        match account.verdict() {
            Verdict::Leave => leave = leave.or(Some(n)),
            Verdict::Cut => {
                cut = Some(n);
                break;
            }
            _ => {}
        }
    }
    (leave, cut)
}

#[test]
fn every_kind_of_flood_is_asked_to_leave_and_then_cut() {
    let open = frame(kind::HEADERS, 5, 3, 40, 0);
    let table: [(&str, &[Seen], (u32, u32)); 9] = [
        ("rapid reset", &[open, frame(kind::RST_STREAM, 0, 3, 4, 8)], (750, 1_000)),
        ("a head without end", &[frame(kind::CONTINUATION, 0, 1, 100, 0)], (42, 54)),
        ("settings", &[frame(kind::SETTINGS, 0, 0, 6, 0)], (150, 200)),
        ("acknowledgements of nothing", &[frame(kind::SETTINGS, 1, 0, 0, 0)], (150, 200)),
        ("pings", &[frame(kind::PING, 0, 0, 8, 0)], (476, 601)),
        ("priorities", &[frame(kind::PRIORITY, 0, 1, 5, 0)], (855, 1_105)),
        ("windows", &[frame(kind::WINDOW_UPDATE, 0, 0, 4, 1)], (870, 1_120)),
        ("nothing", &[frame(kind::DATA, 0, 1, 0, 0)], (750, 1_000)),
        ("who knows what", &[frame(0x77, 0, 1, 10, 0)], (750, 1_000)),
    ];
    for (name, sent, (leave, cut)) in table {
        let near = |a: Option<u32>, b: u32| a.is_some_and(|a| a.abs_diff(b) <= 2);
        let (left, ended) = limits(sent, 0);
        assert!(near(left, leave) && near(ended, cut), "{name}: {left:?} {ended:?}");
        // A tenth of it a second, or as many as are answered, is nobody's enemy.
        assert_eq!(limits(&sent[..1], 300), (None, None), "{name}, slowly");
    }
}

#[test]
fn streams_that_we_have_to_reset_count_too_and_those_that_backends_break_do_not() {
    for (error, counts) in [(error::PROTOCOL_ERROR, true), (error::STREAM_CLOSED, true), (0, false), (2, false)] {
        let mut account = Account::new(TERMS, ms(0));
        for n in 0..300 {
            account.heard(frame(kind::HEADERS, 4, 1 + 2 * n, 40, 0), ms(0));
            account.said(frame(kind::RST_STREAM, 0, 1 + 2 * n, 4, error), ms(0));
        }
        assert_eq!(account.verdict() == Verdict::Cut, counts, "error {error}");
    }
}

#[test]
fn honest_clients_never_come_near_it() {
    // Requests as fast as they come, a window update for each, a cancelled one for each that is answered.
    let mut account = Account::new(TERMS, ms(0));
    for n in 0..200_000u32 {
        let now = ms(u64::from(n) / 100);
        exchange(&mut account, 1 + 4 * n, now);
        account.heard(frame(kind::WINDOW_UPDATE, 0, 0, 4, 1_000), now);
        account.heard(frame(kind::WINDOW_UPDATE, 0, 1 + 4 * n, 4, 1_000), now);
        account.heard(frame(kind::HEADERS, 5, 3 + 4 * n, 40, 0), now);
        account.heard(frame(kind::RST_STREAM, 0, 3 + 4 * n, 4, 8), now);
        assert_eq!(account.verdict(), Verdict::Stay, "after {n} requests");
    }
    // A stream that never ends, in small messages, with a ping for each that comes (gRPC measures its line that way).
    let mut account = Account::new(TERMS, ms(0));
    account.heard(frame(kind::HEADERS, 4, 1, 40, 0), ms(0));
    for n in 0..100_000u64 {
        account.said(frame(kind::DATA, 0, 1, 12, 0), ms(n / 10));
        account.heard(frame(kind::PING, 0, 0, 8, 0), ms(n / 10));
        account.heard(frame(kind::WINDOW_UPDATE, 0, 0, 4, 12), ms(n / 10));
        account.heard(frame(kind::WINDOW_UPDATE, 0, 1, 4, 12), ms(n / 10));
        assert_eq!(account.verdict(), Verdict::Stay, "after {n} messages");
    }
    // A page that is scrolled through: fifty pictures asked for and let go, twice a second.
    let mut account = Account::new(TERMS, ms(0));
    for n in 0..10_000u32 {
        let now = ms(u64::from(n / 50) * 500);
        account.heard(frame(kind::HEADERS, 5, 1 + 2 * n, 40, 0), now);
        account.heard(frame(kind::RST_STREAM, 0, 1 + 2 * n, 4, 8), now);
        assert_eq!(account.verdict(), Verdict::Stay, "after {n} pictures");
    }
}

#[test]
fn streams_are_numbered() {
    let mut account = Account::new(Terms { glitches: 100, streams: 50 }, ms(0));
    for n in 0..50 {
        assert_eq!(account.verdict(), Verdict::Stay);
        exchange(&mut account, 1 + 2 * n, ms(0));
    }
    assert_eq!((account.verdict(), account.last_stream()), (Verdict::Done, 99));
    // Who does not hear is not served for ever.
    let mut beyond = 0;
    while account.verdict() != Verdict::Cut {
        account.heard(frame(kind::HEADERS, 5, 101 + 2 * beyond, 40, 0), ms(0));
        beyond += 1;
    }
    assert_eq!((beyond, account.last()), (100, Some(Glitch::Stream)));
}

#[test]
fn a_client_that_leaves_no_room_is_noticed() {
    let mut account = Account::new(TERMS, ms(0));
    assert!(!account.is_shut());
    account.heard(Seen::InitialWindow(0), ms(0));
    assert!(!account.is_shut(), "nothing is to be sent");
    account.heard(frame(kind::HEADERS, 5, 1, 40, 0), ms(0));
    assert!(account.is_shut());
    account.heard(frame(kind::WINDOW_UPDATE, 0, 1, 4, 1), ms(0));
    assert!(!account.is_shut());
    account.said(frame(kind::DATA, 0, 1, 1, 0), ms(0));
    assert!(account.is_shut(), "one octet was all");
    account.heard(Seen::InitialWindow(10), ms(0));
    assert!(!account.is_shut());
    account.said(frame(kind::DATA, 1, 1, 10, 0), ms(0));
    assert!(!account.is_shut(), "it has ended");
    // The connection's own window counts as well.
    account.heard(frame(kind::HEADERS, 5, 3, 40, 0), ms(0));
    account.heard(frame(kind::WINDOW_UPDATE, 0, 3, 4, 1 << 20), ms(0));
    account.said(frame(kind::DATA, 0, 3, WINDOW - 11, 0), ms(0));
    assert!(account.is_shut());
    account.heard(frame(kind::RST_STREAM, 0, 3, 4, 8), ms(0));
    assert!(!account.is_shut());
}

proptest! {
    #[test]
    fn nothing_overflows_and_the_count_of_shut_streams_is_true(
        steps in prop::collection::vec((any::<bool>(), 0u8..12, any::<u8>(), 0u32..20, any::<u32>(), any::<u32>()), 0..300),
    ) {
        let mut account = Account::new(Terms { glitches: 10, streams: 10 }, ms(0));
        for (i, (is_heard, kind, flags, stream, length, word)) in steps.into_iter().enumerate() {
            let seen = if kind == 11 { Seen::InitialWindow(word) } else { frame(kind, flags, stream, length >> 8, word) };
            if is_heard { account.heard(seen, ms(i as u64)) } else { account.said(seen, ms(i as u64)) };
            let shut = account.streams.open.iter().filter(|s| s.1 <= 0).count();
            prop_assert_eq!(account.streams.shut as usize, shut);
            prop_assert!(account.streams.open.is_sorted());
        }
    }
}
