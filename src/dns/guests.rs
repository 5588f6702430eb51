//! Who is connected: in the order in which they were last active, so that at a limit the one that has been idle longest
//! makes room (RFC 7766 section 6.2.2, RFC 9210 section 4.2).
//!
//! A turn is a number that only grows; who is active takes the next one. The lowest turn is the idlest guest, of all or of
//! one client, found and moved in O(log n): a flood of connections costs no more than it brings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio_util::sync::CancellationToken;

use crate::base::prefix::truncate;

/// Bits of an IPv6 address that are one client: what a site gets at the least (RFC 6177 section 2).
const CLIENT_BITS_V6: u8 = 56;

/// Most that may be here at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// In all.
    pub(super) total: usize,
    /// Of one client: an IPv4 address, or a prefix of IPv6.
    pub(super) per_client: usize,
}

/// Those who are connected.
pub(super) struct Guests {
    open: Mutex<Open>,
    count: Gauge,
}

#[derive(Default)]
struct Open {
    turn: u64,
    guests: BTreeMap<u64, (IpAddr, CancellationToken)>,
    clients: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Open {
    /// Forgets the guest whose turn it was, if it is still here.
    fn take(&mut self, turn: u64) -> Option<(IpAddr, CancellationToken)> {
        let (client, leave) = self.guests.remove(&turn)?;
        if let Some(turns) = self.clients.get_mut(&client) {
            turns.remove(&turn);
            if turns.is_empty() {
                self.clients.remove(&client);
            }
        }
        Some((client, leave))
    }

    /// Lets a guest take the next turn.
    fn put(&mut self, client: IpAddr, leave: CancellationToken) -> u64 {
        self.turn += 1;
        self.guests.insert(self.turn, (client, leave));
        self.clients.entry(client).or_default().insert(self.turn);
        self.turn
    }

    /// The idlest guest that has to go before `client` may come in.
    fn in_the_way(&self, client: IpAddr, room: Room) -> Option<u64> {
        match self.clients.get(&client) {
            Some(own) if own.len() >= room.per_client => own.first().copied(),
            _ if self.guests.len() >= room.total => self.guests.first_key_value().map(|(turn, _)| *turn),
            _ => None,
        }
    }
}

impl Guests {
    /// Nobody yet; `count` tells how many there are.
    pub(super) fn new(count: Gauge) -> Self {
        Self { open: Mutex::default(), count }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().guests.len()
    }

    /// Lets one in from `from`; `leave` is cancelled when it has to go. At a limit the idlest makes room: of the same
    /// client where that is at its own limit, else of all.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr, room: Room, leave: CancellationToken) -> Guest {
        let client = client(from);
        let mut open = self.lock();
        // More than one where a reload has lowered the limit.
        while let Some(turn) = open.in_the_way(client, room) {
            if let Some((_, leave)) = open.take(turn) {
                leave.cancel();
            }
        }
        let turn = AtomicU64::new(open.put(client, leave));
        self.count.set(open.guests.len() as f64);
        Guest { guests: Arc::clone(self), turn }
    }
}

/// The part of an address that is one client.
fn client(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        v6 @ IpAddr::V6(_) => truncate(v6, CLIENT_BITS_V6),
    }
}

/// One who is connected, until this is dropped.
pub(super) struct Guest {
    guests: Arc<Guests>,
    turn: AtomicU64,
}

impl Guest {
    /// Says that it has asked something: it is the last to make room now.
    pub(super) fn active(&self) {
        let mut open = self.guests.lock();
        let turn = self.turn.load(Relaxed);
        // Who asks twice in a row keeps its turn; who has been told to leave gets none.
        if turn != open.turn
            && let Some((client, leave)) = open.take(turn)
        {
            self.turn.store(open.put(client, leave), Relaxed);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.guests.lock();
        open.take(self.turn.load(Relaxed));
        self.guests.count.set(open.guests.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guests() -> Arc<Guests> {
        Arc::new(Guests::new(Gauge::noop()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_a_56_of_ipv6() {
        let guests = guests();
        let room = Room { total: 100, per_client: 1 };
        let enter = |from: &str| {
            let leave = CancellationToken::new();
            (guests.enter(address(from), room, leave.clone()), leave)
        };
        let first = enter("2001:db8:1:200::1");
        let other = enter("2001:db8:1:300::1");
        let mapped = enter("::ffff:192.0.2.1");
        let neighbour = enter("192.0.2.2");
        assert!([&first, &other, &mapped, &neighbour].iter().all(|(_, leave)| !leave.is_cancelled()));
        let _again = (enter("2001:db8:1:2ff::9"), enter("192.0.2.1"));
        assert!(first.1.is_cancelled() && mapped.1.is_cancelled());
        assert!(!other.1.is_cancelled() && !neighbour.1.is_cancelled());
        assert_eq!(guests.len(), 4);
    }

    #[test]
    fn lower_limits_take_effect_with_the_next_guest() {
        let guests = guests();
        let all: Vec<_> = (0..10u8)
            .map(|i| {
                let leave = CancellationToken::new();
                (guests.enter([10, 0, 0, i].into(), Room { total: 10, per_client: 5 }, leave.clone()), leave)
            })
            .collect();
        let _last = guests.enter([10, 0, 1, 0].into(), Room { total: 3, per_client: 5 }, CancellationToken::new());
        assert_eq!(guests.len(), 3);
        assert_eq!(all.iter().filter(|(_, leave)| leave.is_cancelled()).count(), 8);
        drop(all);
        assert_eq!(guests.len(), 1, "who was told to leave takes nobody else's place with it");
    }

    #[derive(Clone, Copy, Debug)]
    enum Deed {
        Enter(u8),
        Active(usize),
        Leave(usize),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            3 => (0u8..4).prop_map(Deed::Enter),
            3 => any::<usize>().prop_map(Deed::Active),
            1 => any::<usize>().prop_map(Deed::Leave),
        ]
    }

    proptest! {
        /// Against the definition: a list in the order of activity, searched from its front.
        #[test]
        fn the_idlest_leaves_first(deeds in prop::collection::vec(deed(), 1..200), total in 1usize..8, per_client in 1usize..5) {
            let guests = guests();
            let room = Room { total, per_client };
            // In the order of activity; the client, the guest, its token.
            let mut model: Vec<(u8, Guest, CancellationToken)> = Vec::new();
            for deed in deeds {
                match deed {
                    Deed::Enter(client) => {
                        let own = model.iter().filter(|(c, ..)| *c == client).count();
                        let goes = if own >= per_client {
                            model.iter().position(|(c, ..)| *c == client)
                        } else {
                            (model.len() >= total).then_some(0)
                        };
                        let leave = CancellationToken::new();
                        let guest = guests.enter([10, 0, 0, client].into(), room, leave.clone());
                        if let Some(at) = goes {
                            let (.., left) = model.remove(at);
                            prop_assert!(left.is_cancelled());
                        }
                        model.push((client, guest, leave));
                    }
                    Deed::Active(at) if !model.is_empty() => {
                        let one = model.remove(at % model.len());
                        one.1.active();
                        model.push(one);
                    }
                    Deed::Leave(at) if !model.is_empty() => drop(model.remove(at % model.len())),
                    Deed::Active(_) | Deed::Leave(_) => {}
                }
                prop_assert_eq!(guests.len(), model.len());
                prop_assert!(model.iter().all(|(.., leave)| !leave.is_cancelled()));
                prop_assert!(guests.len() <= total);
                let clients = guests.lock().clients.values().map(BTreeSet::len).sum::<usize>();
                prop_assert_eq!(clients, model.len());
            }
        }
    }
}
