//! `game`: the game that gifts are delivered to, as far as red packets can tell. For demonstrations and tests.
//!
//! `POST /deliver` gives what an order stands for, once, however often it is told; `GET /ledger/{order_no}`,
//! `GET /ledger?after=ORDER_NO&limit=N` and `GET /stats` show that; `GET /roles?user=U&game_id=G` is the slow look-up behind `zones`; `POST /fault` makes it slow,
//! failing, or losing its replies after the work is done.

use http::{Method, Request, Response, Uri};
use serde::Deserialize;

use super::fault::Faults;
use super::zones::{Role, Roles};
use crate::base::clock::{Clock, SystemClock};
use crate::base::hash;
use crate::net::stage::{Body, Next, Reply, Stage};
use crate::redpacket::model::{Code, GameId, OrderNo, RoleId, UserId, ZoneId};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{json, nowhere, page, query, trace_id};
use crate::redpacket::store::deliveries::Deliveries;

/// What a delivery says. More than the number is taken and not looked at.
#[derive(Deserialize)]
struct Delivery {
    order_no: OrderNo,
}

/// The service.
pub struct GameService {
    ledger: Deliveries,
    faults: Faults,
    clock: SystemClock,
}

impl GameService {
    /// A game with this ledger.
    pub fn new(ledger: Deliveries) -> Self {
        Self { ledger, faults: Faults::default(), clock: SystemClock }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let trace = trace_id(&head.headers);
        let path = head.uri.path();
        let answer = match (&head.method, path) {
            (&Method::GET, "/healthz") => {
                let code = if self.ledger.writable() { Code::Ok } else { Code::Unavailable };
                Ok(Envelope::new(code, &trace))
            }
            (_, "/fault") => return self.faults.turn(&head, body).await,
            (&Method::POST, "/deliver") => match self.faults.suffer().await {
                Ok(lose) => self.deliver(body, &trace, lose).await,
                Err(instead) => return instead,
            },
            (&Method::GET, "/roles") => match self.faults.suffer().await {
                Ok(_) => roles(&head.uri, &trace),
                Err(instead) => return instead,
            },
            (&Method::GET, "/stats") => match self.ledger.tally().await {
                Ok(tally) => Ok(Envelope::new(Code::Ok, &trace).with(tally)),
                Err(e) => Err(Box::new(Envelope::new(e.code(), &trace).saying(e.to_string()))),
            },
            (&Method::GET, "/ledger") => self.page(&head.uri, &trace).await,
            (&Method::GET, _) if path.starts_with("/ledger/") => self.look(path, &trace).await,
            _ => return nowhere(&trace),
        };
        answer.unwrap_or_else(|refused| *refused).respond()
    }

    async fn deliver(&self, body: Body, trace: &str, lose: bool) -> Result<Envelope, Box<Envelope>> {
        let Delivery { order_no } = json(body, trace).await?;
        match self.ledger.apply(order_no, self.clock.wall()).await {
            Ok(_) if lose => Err(Box::new(Envelope::new(Code::Unavailable, trace))),
            Ok(entry) => Ok(Envelope::new(Code::Ok, trace).with(entry)),
            Err(error) => Err(Box::new(Envelope::new(error.code(), trace).saying(error.to_string()))),
        }
    }

    /// A page of the ledger, for who reconciles.
    async fn page(&self, uri: &Uri, trace: &str) -> Result<Envelope, Box<Envelope>> {
        let (after, limit) =
            page(uri).map_err(|words| Box::new(Envelope::new(Code::BadRequest, trace).saying(words)))?;
        match self.ledger.scan(after, limit).await {
            Ok(entries) => Ok(Envelope::new(Code::Ok, trace).with(serde_json::json!({ "entries": entries }))),
            Err(error) => Err(Box::new(Envelope::new(error.code(), trace).saying(error.to_string()))),
        }
    }

    async fn look(&self, path: &str, trace: &str) -> Result<Envelope, Box<Envelope>> {
        let text = path.trim_start_matches("/ledger/");
        let refuse = |code, words: String| Box::new(Envelope::new(code, trace).saying(words));
        let order_no = OrderNo::parse(text).map_err(|e| refuse(Code::BadRequest, e.to_string()))?;
        match self.ledger.find(order_no).await {
            Ok(Some(entry)) => Ok(Envelope::new(Code::Ok, trace).with(entry)),
            Ok(None) => Err(refuse(Code::NotFound, "This order was never delivered here.".into())),
            Err(error) => Err(refuse(error.code(), error.to_string())),
        }
    }
}

/// One or two roles for everybody, made up out of the user's name.
fn roles(uri: &Uri, trace: &str) -> Result<Envelope, Box<Envelope>> {
    let bad =
        |e: crate::redpacket::model::BadId| Box::new(Envelope::new(Code::BadRequest, trace).saying(e.to_string()));
    let user = UserId::parse(query(uri, "user").unwrap_or_default()).map_err(bad)?;
    let game = GameId::parse(query(uri, "game_id").unwrap_or_default()).map_err(bad)?;
    let luck = hash::join(hash::bytes(3, user.as_str().as_bytes()), hash::bytes(4, game.as_str().as_bytes()));
    let short: String = game.as_str().split('-').filter_map(|word| word.chars().next()).collect();
    let role = |n: u64| {
        Ok(Role {
            zone_id: ZoneId::parse(&format!("{short}-{n}")).map_err(bad)?,
            role_id: RoleId::parse(&format!("role-{:08x}", (luck >> 8) as u32 ^ n as u32)).map_err(bad)?,
            name: format!("Wanderer {}", luck % 10_000),
            level: (luck >> 32) as u32 % 60 + n as u32,
        })
    };
    let roles = (1..=1 + luck % 2).map(role).collect::<Result<_, Box<Envelope>>>()?;
    Ok(Envelope::new(Code::Ok, trace).with(Roles { roles }))
}

impl Stage for GameService {
    fn name(&self) -> &'static str {
        "game"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}
