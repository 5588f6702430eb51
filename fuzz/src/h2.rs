//! HTTP/2: frames as they pass, and what they are worth.

use springtide::base::clock::Mono;
use springtide::decide::glitch::{Account, Terms, Verdict};
use springtide::wire::h2::{Reader, Seen};

/// Any octets as what a client sends, in pieces of any size: the same frames are seen, and the account is never at a loss.
pub fn h2_frames(data: &[u8]) {
    let Some((&size, octets)) = data.split_first() else { return };
    let mut whole = Vec::new();
    let mut reader = Reader::of_client();
    reader.read(octets, |seen| whole.push(seen));
    let (mut pieces, mut piecewise) = (Vec::new(), Reader::of_client());
    octets.chunks(usize::from(size).max(1)).for_each(|piece| piecewise.read(piece, |seen| pieces.push(seen)));
    assert_eq!(whole, pieces);
    assert_eq!(reader.is_between(), piecewise.is_between());
    let mut account = Account::new(Terms { glitches: 10, streams: 5 }, Mono::ZERO);
    let mut costs = 0_u64;
    for (i, seen) in whole.into_iter().enumerate() {
        let now = Mono::from_millis(i as u64);
        let glitch = if i % 3 == 2 { account.said(seen, now) } else { account.heard(seen, now) };
        costs += u64::from(glitch.is_some());
        assert!(!matches!(seen, Seen::InitialWindow(_)) || glitch.is_none());
    }
    assert!(costs > 0 || !matches!(account.verdict(), Verdict::Leave | Verdict::Cut), "nobody is cut for nothing");
}
