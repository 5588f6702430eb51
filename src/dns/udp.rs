//! The UDP loop: one thread, one socket, blocking batches, answers in the buffers that the queries came in.
//!
//! No event loop, no allocation and no lock for a query; the snapshot is loaded once a batch. Leaves when told to, at the
//! latest after the socket's receive timeout.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use socket2::SockRef;
use tokio_util::sync::CancellationToken;

use super::answer::{Meta, Outcome, Transport, answer_in_place};
use super::guard::{Fate, Guard};
use super::table::Table;
use super::tally::{FLUSH, Tally, Told};
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::entropy::Rng;
use crate::net::sys::{Batch, omit_path_mtu};
use crate::snapshot::Published;
use crate::snapshot::views::Slot;

/// How long a thread waits for a query before it looks whether it is to stop.
const LOOK_UP: Duration = Duration::from_millis(200);
/// How many batches pass before the clock is read.
const BATCHES: u32 = 64;
/// How many errors in a row, without a query or an idle moment between them, mean that the socket is lost.
const STRIKES: u32 = 1_000;
/// What the kernel may hold for us: at 200,000 queries a second some 10 ms' worth.
const KERNEL_BUFFER: usize = 1 << 20;

/// Prepares `socket` for [`serve`].
pub(super) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    socket.set_read_timeout(Some(LOOK_UP))?;
    let socket2 = SockRef::from(socket);
    // The system may cap these; less is slower under bursts, not wrong.
    let _ = socket2.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket2.set_send_buffer_size(KERNEL_BUFFER);
    omit_path_mtu(socket)
}

/// Answers what comes in on `socket` until `shutdown`.
pub(super) fn serve(socket: &UdpSocket, published: &Published, guard: &Guard, shutdown: &CancellationToken) {
    let mut batch = match Batch::new(socket) {
        Ok(batch) => batch,
        Err(error) => {
            tracing::error!(%error, "a UDP thread of the name server could not begin");
            return;
        }
    };
    let mut seat = Seat { guard, tally: Tally::new(Transport::Udp, guard), rng: Rng::from_os() };
    let (mut told, mut batches, mut strikes) = (Told(SystemClock.mono()), 0, 0);
    while !shutdown.is_cancelled() {
        match batch.receive(socket) {
            Ok(received) => {
                answer_batch(&mut batch, received, published, &mut seat);
                let unsent = batch.send(socket);
                seat.tally.unsent(unsent);
                (batches, strikes) = (batches + 1, 0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // An idle moment.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (batches, strikes) = (BATCHES, 0),
            Err(error) if strikes >= STRIKES => {
                tracing::error!(%error, "a UDP thread of the name server gives up its socket");
                return;
            }
            Err(_) => strikes += 1,
        }
        if batches >= BATCHES {
            batches = 0;
            let now = SystemClock.mono();
            if now.since(told.0) >= FLUSH {
                told.again(&mut seat.tally, now);
            }
        }
    }
}

/// What a thread works with.
struct Seat<'g> {
    guard: &'g Guard,
    tally: Tally,
    rng: Rng,
}

fn answer_batch(batch: &mut Batch, received: usize, published: &Published, seat: &mut Seat<'_>) {
    let snapshot = published.look(Slot::Dns);
    let made;
    let table = match snapshot.views.peek::<Table>(Slot::Dns) {
        Some(table) => table,
        None => match Table::of(&snapshot) {
            Some(table) => {
                made = table;
                &*made
            }
            None => return,
        },
    };
    let Seat { guard, tally, rng } = seat;
    tally.follow(&snapshot.topology);
    tally.batch(received);
    let (now, mono) = (SystemClock.wall(), SystemClock.mono());
    for index in 0..received {
        let Some(datagram) = batch.datagram(index) else { continue };
        let meta = Meta { client: datagram.from, transport: Transport::Udp, now };
        let mut outcome = answer_in_place(table, datagram.buffer, datagram.length, &meta);
        let limited = match &mut outcome {
            Outcome::Send(sent) => guard.pass(&table.fixed.rules, meta.client, sent, datagram.buffer, mono, rng),
            Outcome::Drop(_) => None,
        };
        tally.count(&meta, datagram.buffer, &outcome, limited);
        match (outcome, limited) {
            (Outcome::Drop(_), _) | (_, Some((_, Fate::Dropped))) => {}
            (Outcome::Send(sent), _) => batch.reply(index, sent.length),
        }
    }
}
