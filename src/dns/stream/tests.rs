//! Framing and limits of a stream.

use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::dns::answer::Transport;
use crate::dns::fixture::{Ask, published, world};
use crate::dns::house::room;
use crate::wire::text;

const NAME: &str = "host.example.test.";

fn house() -> Arc<House> {
    Arc::new(House::new(Transport::Tcp, published(world()), &crate::dns::fixture::guard(), CancellationToken::new()))
}

fn framed(qname: &str, id: u16) -> Vec<u8> {
    let mut query = Ask::new(qname, "A").bytes();
    query[..2].copy_from_slice(&id.to_be_bytes());
    [&(query.len() as u16).to_be_bytes(), query.as_slice()].concat()
}

/// Reads one answer; gives its id and how many records answer.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u16, usize)> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    let read = text::message(&message).ok_or(io::ErrorKind::InvalidData)?;
    Ok((u16::from_be_bytes([message[0], message[1]]), read.sections[0].len()))
}

/// A conversation over a pipe that holds `octets`; the task gives how it ended.
fn connect(
    house: &Arc<House>,
    limits: Connections,
    client: u8,
    octets: usize,
) -> (DuplexStream, tokio::task::JoinHandle<End>) {
    let (ours, theirs) = duplex(octets);
    let from = IpAddr::from([10, 0, 0, client]);
    let (house, leave) = (Arc::clone(house), house.shutdown.child_token());
    let guest = house.guests.enter(from, room(&limits), leave.clone());
    #[expect(clippy::disallowed_methods, reason = "a test waits for what its own task says")]
    let end = tokio::spawn(async move { converse(ours, &guest, from, &leave, &limits, &house).await });
    (theirs, end)
}

#[tokio::test]
async fn everything_that_was_asked_at_once_is_answered_in_order() {
    let (house, limits) = (house(), Connections::default());
    let (mut stream, _end) = connect(&house, limits, 1, 1 << 20);
    let all: Vec<u8> = (0..500).flat_map(|id| framed(NAME, id)).collect();
    stream.write_all(&all).await.unwrap();
    for id in 0..500 {
        assert_eq!(receive(&mut stream).await.unwrap(), (id, 2));
    }
}

#[tokio::test]
async fn a_query_may_come_octet_by_octet() {
    let (house, limits) = (house(), Connections::default());
    let (mut stream, _end) = connect(&house, limits, 1, 4096);
    for octet in [framed(NAME, 1), framed(NAME, 2)].concat() {
        stream.write_u8(octet).await.unwrap();
        tokio::task::yield_now().await;
    }
    for id in [1, 2] {
        assert_eq!(receive(&mut stream).await.unwrap(), (id, 2));
    }
}

#[tokio::test]
async fn what_is_dropped_leaves_no_frame_and_what_is_broken_gets_its_answer() {
    let (house, limits) = (house(), Connections::default());
    let (mut stream, end) = connect(&house, limits, 1, 1 << 16);
    let mut response = framed(NAME, 7);
    response[4] |= 0x80;
    let largest = [vec![0xff, 0xff], vec![0; 65_535]].concat();
    stream.write_all(&[&[0, 0][..], &[0, 3, 1, 2, 3], &response, &framed(NAME, 8)].concat()).await.unwrap();
    assert_eq!(receive(&mut stream).await.unwrap(), (8, 2));
    stream.write_all(&largest).await.unwrap();
    assert_eq!(receive(&mut stream).await.unwrap(), (0, 0), "a query of the largest size is one: FORMERR");
    drop(stream);
    assert_eq!(end.await.unwrap(), End::Client);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_whole_is_idle_however_busy() {
    let (house, limits) = (house(), Connections::default());
    let (mut silent, silent_end) = connect(&house, limits, 1, 64);
    let (mut dripping, dripping_end) = connect(&house, limits, 2, 64);
    let (mut asking, asking_end) = connect(&house, limits, 3, 1 << 12);
    for _ in 0..6 {
        sleep(limits.idle / 4).await;
        // The end may have come already.
        let _ = dripping.write_u8(1).await;
        asking.write_all(&framed(NAME, 1)).await.unwrap();
        assert_eq!(receive(&mut asking).await.unwrap(), (1, 2));
    }
    assert_eq!(silent_end.await.unwrap(), End::Idle);
    assert_eq!(dripping_end.await.unwrap(), End::Idle);
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
    drop(asking);
    assert_eq!(asking_end.await.unwrap(), End::Client);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_answers_is_let_go() {
    let (house, limits) = (house(), Connections::default());
    let (mut stream, end) = connect(&house, limits, 1, 128);
    stream.write_all(&framed(NAME, 1)).await.unwrap();
    // The rest of the queries finds no reader: ours waits for the answers to be taken.
    let more = (2..9).flat_map(|id| framed(NAME, id)).collect::<Vec<u8>>();
    let _ = timeout(Duration::from_mins(1), stream.write_all(&more)).await;
    assert_eq!(end.await.unwrap(), End::Slow);
}

#[tokio::test]
async fn at_the_limit_the_one_that_was_idle_longest_makes_room() {
    let (house, limits) = (house(), Connections { total: 3, per_client: 2, ..Connections::default() });
    let (mut first, first_end) = connect(&house, limits, 1, 4096);
    let (mut second, second_end) = connect(&house, limits, 2, 4096);
    let (mut third, _third_end) = connect(&house, limits, 3, 4096);
    // The first becomes the latest, so the second is the idlest.
    first.write_all(&framed(NAME, 1)).await.unwrap();
    assert_eq!(receive(&mut first).await.unwrap(), (1, 2));
    let (mut fourth, _fourth_end) = connect(&house, limits, 4, 4096);
    assert_eq!(second_end.await.unwrap(), End::Evicted);
    assert_eq!(second.read(&mut [0; 8]).await.unwrap(), 0);
    for stream in [&mut first, &mut third, &mut fourth] {
        stream.write_all(&framed(NAME, 9)).await.unwrap();
        assert_eq!(receive(stream).await.unwrap(), (9, 2));
    }
    assert_eq!(house.guests.len(), 3);
    drop(first);
    assert_eq!(first_end.await.unwrap(), End::Client);
}

#[tokio::test]
async fn a_client_at_its_own_limit_gives_up_its_own() {
    let (house, limits) = (house(), Connections { total: 100, per_client: 2, ..Connections::default() });
    let (_other, _other_end) = connect(&house, limits, 9, 64);
    let (_one, one_end) = connect(&house, limits, 1, 64);
    let (_two, _two_end) = connect(&house, limits, 1, 64);
    let (_three, _three_end) = connect(&house, limits, 1, 64);
    assert_eq!(one_end.await.unwrap(), End::Evicted);
    assert_eq!(house.guests.len(), 3);
}

#[tokio::test]
async fn who_does_not_take_answers_makes_room_at_once() {
    let (house, limits) = (house(), Connections { total: 1, ..Connections::default() });
    let (mut stuck, stuck_end) = connect(&house, limits, 1, 128);
    let asked = (1..4).flat_map(|id| framed(NAME, id)).collect::<Vec<u8>>();
    stuck.write_all(&asked).await.unwrap();
    // It has begun to answer, and waits for a reader.
    stuck.read_u8().await.unwrap();
    let (mut other, _other_end) = connect(&house, limits, 2, 4096);
    assert_eq!(stuck_end.await.unwrap(), End::Evicted);
    other.write_all(&framed(NAME, 1)).await.unwrap();
    assert_eq!(receive(&mut other).await.unwrap(), (1, 2));
}
