//! The games that are told: which gift is for which, and how fast each is told at the moment.
//!
//! A game has a lane of its own: a rate that follows what it can take, and a place where its orders wait. So one that is slow
//! or gone holds up its own gifts and nobody else's.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge};

use super::Pace;
use crate::base::clock::Mono;
use crate::observe::names::redpacket as names;
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::model::{Failure, GameId, GiftId};
use crate::redpacket::pace::Throttle;
use crate::redpacket::peer::Peer;

/// The label of a lane that is not one game's alone.
const OTHERS: &str = "others";

/// Where games are told.
pub struct Games {
    lanes: Vec<Lane>,
    by_gift: HashMap<GiftId, usize>,
    /// For gifts whose game has no lane of its own.
    otherwise: Option<usize>,
}

/// Gifts that nobody could be told of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address for the game {game}: say --game {game}=URL, or --game URL for all that are not named")]
pub struct Homeless {
    /// Their game.
    pub game: GameId,
}

/// One game, or all that share an address.
pub(super) struct Lane {
    pub(super) peer: Peer,
    throttle: Mutex<Throttle>,
    rate: Gauge,
    delivered: Counter,
    dead: Counter,
    deferred: Counter,
    failed: Vec<(Failure, Counter)>,
}

impl Games {
    /// One address for all gifts.
    pub fn one(peer: Peer, pace: &Pace) -> Self {
        Self { lanes: vec![Lane::new(OTHERS, peer, pace.rate, pace)], by_gift: HashMap::new(), otherwise: Some(0) }
    }

    /// The games of `catalogue`: each of `named` at its own address and rate, the rest at `otherwise`.
    ///
    /// # Errors
    /// A game of the catalogue has no address.
    pub fn of(
        catalogue: &Catalogue,
        named: Vec<(GameId, Peer, f64)>,
        otherwise: Option<Peer>,
        pace: &Pace,
    ) -> Result<Self, Homeless> {
        let mut games = Self { lanes: Vec::new(), by_gift: HashMap::new(), otherwise: None };
        let mut lane_of = HashMap::new();
        for (game, peer, rate) in named {
            games.lanes.push(Lane::new(game.as_str(), peer, rate, pace));
            lane_of.insert(game, games.lanes.len() - 1);
        }
        if let Some(peer) = otherwise {
            games.lanes.push(Lane::new(OTHERS, peer, pace.rate, pace));
            games.otherwise = Some(games.lanes.len() - 1);
        }
        for gift in &catalogue.gifts {
            match lane_of.get(&gift.game_id) {
                Some(&lane) => drop(games.by_gift.insert(gift.gift_id.clone(), lane)),
                None if games.otherwise.is_none() => return Err(Homeless { game: gift.game_id.clone() }),
                None => {}
            }
        }
        Ok(games)
    }

    /// How many lanes there are.
    pub(super) const fn len(&self) -> usize {
        self.lanes.len()
    }

    /// All lanes with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.lanes.iter().enumerate()
    }

    /// The lane with this number.
    pub(super) fn lane(&self, number: usize) -> Option<&Lane> {
        self.lanes.get(number)
    }

    /// The lane that `gift` goes by, or what is no gift; nothing where it has left the catalogue and there is no address for the rest.
    pub(super) fn lane_of(&self, gift: Option<&GiftId>) -> Option<usize> {
        gift.and_then(|gift| self.by_gift.get(gift)).copied().or(self.otherwise)
    }
}

impl Lane {
    fn new(game: &str, peer: Peer, rate: f64, pace: &Pace) -> Self {
        let count = |result| names::DELIVERIES_TOTAL.counter(&[game, result]);
        let gauge = names::DELIVERY_RATE.gauge(&[game]);
        gauge.set(rate);
        Self {
            peer,
            throttle: Mutex::new(Throttle::new(rate, pace.slow)),
            rate: gauge,
            delivered: count("delivered"),
            dead: count("dead"),
            deferred: count("deferred"),
            failed: Failure::ALL.iter().map(|f| (*f, count(f.as_str()))).collect(),
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deliveries a second at the moment.
    pub(super) fn rate(&self) -> f64 {
        self.throttle().rate()
    }

    /// Takes the right to tell it once, or says how long until then.
    ///
    /// # Errors
    /// Not yet; the time until then.
    pub(super) fn take(&self, now: Mono) -> Result<(), Duration> {
        self.throttle().take(now)
    }

    /// Notes what came of telling it, which took so long.
    pub(super) fn felt(&self, outcome: Result<(), Failure>, took: Duration, now: Mono) {
        // A refusal is an answer: the game is well.
        let is_good = matches!(outcome, Ok(()) | Err(Failure::Refused));
        let mut throttle = self.throttle();
        throttle.felt(is_good, took, now);
        self.rate.set(throttle.rate());
        drop(throttle);
        match outcome {
            Ok(()) => self.delivered.increment(1),
            Err(why) => self.failed.iter().filter(|(f, _)| *f == why).for_each(|(_, counter)| counter.increment(1)),
        }
    }

    /// Notes an order that was given up.
    pub(super) fn gave_up(&self) {
        self.dead.increment(1);
    }

    /// Notes an order that was put off.
    pub(super) fn put_off(&self) {
        self.deferred.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new("http://127.0.0.1:9".parse().unwrap())
    }

    #[test]
    fn every_gift_has_a_lane_or_the_start_says_so() {
        let (catalogue, pace) = (Catalogue::built_in(), Pace::default());
        let arena = GameId::parse("arena-nine").unwrap();
        let alone = Games::of(&catalogue, vec![(arena.clone(), peer(), 10.0)], None, &pace);
        assert_eq!(alone.err().map(|e| e.game.to_string()), Some("sky-riders".to_owned()));
        let games = Games::of(&catalogue, vec![(arena, peer(), 10.0)], Some(peer()), &pace).unwrap();
        let lane = |gift: &str| games.lane_of(Some(&GiftId::parse(gift).unwrap()));
        assert_eq!((lane("firecracker"), lane("gold-ingots"), lane("long-gone")), (Some(0), Some(1), Some(1)));
        assert!(games.lane(0).is_some_and(|lane| (lane.rate() - 10.0).abs() < 1e-9));
    }
}
