//! How gently deliveries go, as the command line says it: to all games, and to one of them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::base::units;
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::model::GameId;
use crate::redpacket::pace::Backoff;
use crate::redpacket::peer::{Origin, Peer};
use crate::redpacket::service::{Games, Pace};

#[derive(Debug, Args)]
pub(super) struct PaceArgs {
    /// Deliveries a second to each game, at most; GAME=RATE for one of them (repeatable). A game that fails or is slow gets
    /// less, down to one a second, until it is well again.
    #[arg(long, default_value = "500 rps", value_name = "[GAME=]RATE")]
    rate: Vec<At<Rate>>,
    /// Deliveries to a game at once, at most.
    #[arg(long, default_value_t = 32, value_name = "N")]
    concurrency: usize,
    /// How long the game may take for one.
    #[arg(long, default_value = "2s", value_parser = units::duration, value_name = "TIME")]
    delivery_timeout: Duration,
    /// From when on an answer of a game counts as slow.
    #[arg(long, default_value = "500ms", value_parser = units::duration, value_name = "TIME")]
    slow: Duration,
    /// How long an order is kept from other workers; longer than the timeout.
    #[arg(long, default_value = "10s", value_parser = units::duration, value_name = "TIME")]
    lease: Duration,
    /// Attempts after which an order is left to a person.
    #[arg(long, default_value_t = Backoff::default().attempts, value_name = "N")]
    attempts: u32,
    /// The age from which on an order that fails again is left to a person.
    #[arg(long, default_value = "48h", value_parser = units::duration, value_name = "TIME")]
    give_up_after: Duration,
}

/// Something for one game, or for all that are not named.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    game: Option<GameId>,
    what: T,
}

impl<T: FromStr<Err: Into<Failure>>> FromStr for At<T> {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let (game, what) = match text.split_once('=') {
            Some((game, what)) => (Some(GameId::parse(game)?), what),
            None => (None, text),
        };
        Ok(Self { game, what: what.parse().map_err(Into::into)? })
    }
}

/// A rate, a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(f64);

impl FromStr for Rate {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let rate = units::rate(text)?;
        if rate > 0.0 { Ok(Self(rate)) } else { Err("a rate must be above zero".into()) }
    }
}

impl PaceArgs {
    /// The pace that was asked for.
    ///
    /// # Errors
    /// It makes no sense, and how.
    pub(super) fn pace(&self) -> Result<Pace, &'static str> {
        if self.lease < self.delivery_timeout * 2 {
            return Err("--lease must be at least twice --delivery-timeout, or slow deliveries are made twice");
        }
        if self.concurrency == 0 {
            return Err("--concurrency must be above zero");
        }
        let backoff = Backoff { attempts: self.attempts, within: self.give_up_after, ..Backoff::default() };
        let rate = self.rate.iter().rfind(|r| r.game.is_none()).map_or(Pace::default().rate, |r| r.what.0);
        let (concurrency, slow) = (self.concurrency.min(1_024), self.slow);
        Ok(Pace { rate, concurrency, limit: self.delivery_timeout, slow, lease: self.lease, backoff })
    }

    /// The games of `catalogue` at these addresses, each at the rate that was asked for.
    ///
    /// # Errors
    /// A game has no address, or is not in the catalogue.
    pub(super) fn games(&self, catalogue: &Catalogue, at: &[At<Origin>], pace: &Pace) -> Result<Arc<Games>, Failure> {
        let rates = &self.rate;
        let known = |game: &GameId| catalogue.gifts.iter().any(|gift| gift.game_id == *game);
        let all = at.iter().filter_map(|a| a.game.as_ref()).chain(rates.iter().filter_map(|r| r.game.as_ref()));
        if let Some(stranger) = all.into_iter().find(|game| !known(game)) {
            return Err(format!("no gift of the catalogue is for a game {stranger}").into());
        }
        let rate =
            |game: &GameId| rates.iter().rfind(|r| r.game.as_ref() == Some(game)).map_or(pace.rate, |r| r.what.0);
        let named = at.iter().filter_map(|a| {
            let game = a.game.clone()?;
            Some((game.clone(), Peer::new(a.what.clone()), rate(&game)))
        });
        let otherwise = at.iter().rfind(|a| a.game.is_none()).map(|a| Peer::new(a.what.clone()));
        Ok(Arc::new(Games::of(catalogue, named.collect(), otherwise, pace)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_game_may_be_named_or_all_may_be_meant() {
        let one: At<Rate> = "arena-nine=200 rps".parse().unwrap();
        assert_eq!((one.game.map(|g| g.to_string()), one.what.0), (Some("arena-nine".into()), 200.0));
        let all: At<Origin> = "http://127.0.0.1:7000".parse().unwrap();
        assert!(all.game.is_none());
        for bad in ["arena-nine=", "=200 rps", "0 rps", "arena nine=1 rps", "fast"] {
            assert!(bad.parse::<At<Rate>>().is_err(), "{bad}");
        }
    }
}
