//! The question for stock, from one home to another, and what is said to it.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Away, Relay};
use crate::redpacket::ledger::transfer::Need;
use crate::redpacket::model::GiftId;

/// How long another home may take: a commit, however busy its store is. Whoever is asked in vain is asked again.
const GIVE: Duration = Duration::from_secs(1);

/// A home asks another for stock.
#[derive(Deserialize, Serialize)]
pub(in crate::redpacket::service) struct Wish {
    /// Who is meant: a file with a wrong URL must not mix up whose number it is.
    pub(in crate::redpacket::service) of: String,
    /// Who asks.
    pub(in crate::redpacket::service) by: String,
    /// What is asked for.
    pub(in crate::redpacket::service) gift_id: GiftId,
    /// Under which number.
    pub(in crate::redpacket::service) number: u64,
    /// And why.
    pub(in crate::redpacket::service) need: Need,
}

/// What it is given.
#[derive(Deserialize, Serialize)]
pub(in crate::redpacket::service) struct Given {
    /// Under which number.
    pub(in crate::redpacket::service) number: u64,
    /// How much; 0 leaves the number free.
    pub(in crate::redpacket::service) amount: u64,
}

impl Relay {
    /// The names of the others, in the order of the file; nobody where this one is no home any more.
    pub(in crate::redpacket::service) fn others(&self) -> Vec<String> {
        let chart = self.chart();
        let Some(here) = chart.here else { return Vec::new() };
        let others = chart.homes.all().iter().enumerate().filter(|(place, _)| *place != here);
        others.map(|(_, home)| home.name.clone()).collect()
    }

    /// Whether that question is one of another home's to this one.
    pub(in crate::redpacket::service) fn is_asked(&self, wish: &Wish) -> bool {
        wish.of == self.name && wish.by != self.name && self.chart().homes.place(&wish.by).is_some()
    }

    /// Asks the home by the name of `of` for some of `gift_id`. Without an answer, nobody knows whether it gave any: it is to
    /// be asked again, under the same number.
    pub(in crate::redpacket::service) async fn ask_for(
        &self,
        of: &str,
        gift_id: GiftId,
        number: u64,
        need: Need,
    ) -> Result<u64, Away> {
        let chart = self.chart();
        let place = chart.homes.place(of).ok_or(Away::Garbage)?;
        let wish = Wish { of: of.to_owned(), by: self.name.clone(), gift_id, number, need };
        let body = serde_json::to_vec(&wish).map_err(|_| Away::Garbage)?;
        // Not by the breaker, which is for claims: what comes of this must not keep a claim from its home.
        let reach = chart.reaches.get(place).ok_or(Away::Garbage)?;
        let reply = reach.call(&Method::POST, "/internal/stock", &body.into(), &[], GIVE).await;
        let reply = reply.map_err(|error| Away::Silent(error.as_str()))?;
        let given = serde_json::from_slice::<Given>(&reply.body).ok().filter(|_| reply.status == StatusCode::OK);
        given.filter(|given| given.number == number).map(|given| given.amount).ok_or(Away::Garbage)
    }
}
