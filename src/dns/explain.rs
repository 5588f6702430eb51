//! Why a name is answered as it is: every candidate, its rank or what keeps it out, the scope, the TTL, the answer itself.
//!
//! The answer is made by the same [`answer`] from the same table as for a real query of a resolver that passes the client's
//! network on; the ranking is the same plan's. Nothing is decided here.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::answer::{Meta, Outcome, Transport, answer};
use super::steered::Steered;
use super::table::{Found, Table, localities};
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::ids::SteerId;
use crate::base::prefix::embedded;
use crate::config::{Datacenter, Member, OnAllDown, Steer, Who};
use crate::decide::near;
use crate::decide::steer::{Client, Plan, Rank, Seat};
use crate::snapshot::{DcState, Snapshot};
use crate::wire::dns::MAX_TCP;
use crate::wire::{ecs, lookup, name, rdata, text};

/// Explains what `client` gets when it asks for `rtype` of `name`; a relative name is taken as ending with a dot. What can't
/// be asked is said in the member `error`.
pub fn explain(snapshot: &Snapshot, name: &str, rtype: &str, client: IpAddr) -> Value {
    let dotted = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
    let Some(wanted) = rdata::type_of(rtype) else {
        return json!({ "error": format!("`{rtype}` is no type: expected A, AAAA, HTTPS, TXT or another, or TYPE123") });
    };
    let wire = match name::parse(&dotted, None) {
        Ok(wire) => wire,
        Err(error) => return json!({ "error": format!("`{name}` is no name: {error}") }),
    };
    let Some(dns) = &snapshot.topology.config.dns else {
        return json!({ "error": "this node has no name server" });
    };
    let Some(table) = Table::of(snapshot) else {
        return json!({ "error": "the table could not be made" });
    };
    let seen = Client::new(client, dns.client_prefix);
    let found = table.find(&name::lower(&wire));
    let (what, steer) = match found {
        Found::Outside => ("not in our zones", None),
        Found::Missing(_) => ("no such name", None),
        Found::Cut(..) => ("delegated", None),
        Found::Redirect(..) => ("beneath a DNAME", None),
        Found::Node(node) => match table.steered(node) {
            Some((id, steered)) if steered.has(wanted) => ("steered", Some((id, steered))),
            _ => ("static", None),
        },
    };
    json!({
        "name": dotted,
        "type": rdata::type_name(wanted),
        "client": { "address": client, "stands_for": stands_for(client), "network": seen.network, "passed_on_by_resolver": dns.ecs },
        "generation": snapshot.generation,
        "found": what,
        "steering": steer.and_then(|(id, steered)| Some(steering(snapshot, dns.steers.get(id.index())?, id, steered, &seen))),
        "answer": answered(&table, &wire, wanted, client, dns.ecs, dns.client_prefix),
    })
}

fn steering(snapshot: &Snapshot, steer: &Steer, id: SteerId, steered: &Steered, client: &Client) -> Value {
    let Some(plan) = steered.plan() else { return Value::Null };
    let health = snapshot.steers.get(id.index());
    let choice = plan.choose(client);
    let on_all_down = match &steer.on_all_down {
        OnAllDown::ServeAll => json!("serve-all"),
        OnAllDown::LastResort(addresses) => json!({ "last-resort": addresses }),
        OnAllDown::Nodata => json!("nodata"),
        OnAllDown::Servfail => json!("servfail"),
        OnAllDown::Refused => json!("refused"),
    };
    let fence = plan.fence(client).and_then(|place| steer.fences.get(place)).map(|fence| {
        let names: Vec<&str> = snapshot.topology.config.candidates(steer).map(|dc| dc.name.as_str()).collect();
        json!({ "only": fence.only.iter().filter_map(|i| names.get(*i)).collect::<Vec<_>>(), "on_empty": steer.on_empty })
    });
    json!({
        "policy": steer.policy,
        "reason": choice.reason,
        "answers": steer.answers,
        "fence": fence,
        "near": plan.near_leaf(client).map(|_| nearness(snapshot, steer, client)),
        "near_leaf": plan.near_leaf(client).map(|(network, length)| format!("{network}/{length}")),
        "scope": choice.scope,
        "all_down": health.is_some_and(|h| h.all_down),
        "on_all_down": on_all_down,
        "ttl": {
            "seconds": steered.ttl,
            "base": steer.ttl_base.as_secs(),
            "min": steer.ttl_min.as_secs(),
            "why": if u64::from(steered.ttl) < steer.ttl_base.as_secs() { "a change may be near" } else { "calm" },
        },
        "pools": pools(&steer.members),
        "candidates": candidates(snapshot, steer, id, plan, client),
    })
}

/// All that is said of where the client is, the most exact first, and to whom it makes it near.
fn nearness(snapshot: &Snapshot, steer: &Steer, client: &Client) -> Vec<Value> {
    let config = &snapshot.topology.config;
    let names: Vec<&str> = config.candidates(steer).map(|dc| dc.name.as_str()).collect();
    let hits = near::hits(&localities(config, steer), &snapshot.topology.assets.atlas, client.network);
    let hit = |hit: near::Hit| {
        json!({
            "said": hit.locality.to_string(),
            "by": hit.file.map_or_else(|| "configuration".into(), |file| file.display().to_string()),
            "near_to": hit.candidates.iter().filter_map(|place| names.get(*place)).collect::<Vec<_>>(),
            "counts": hit.counts,
        })
    };
    hits.into_iter().map(hit).collect()
}

/// The groups of a name as they nest; nothing where there are none.
fn pools(members: &[Member]) -> Vec<Value> {
    let pool = |member: &Member| match &member.who {
        Who::Datacenter(_) => None,
        Who::Pool(pool) => Some(json!({
            "pool": pool.name,
            "policy": pool.policy,
            "weight": member.weight,
            "standby": member.standby,
            "fail_below": pool.fail_below,
            "pools": pools(&pool.members),
        })),
    };
    members.iter().filter_map(pool).collect()
}

/// The groups that candidate `index` stands in, outermost first, and whether it stands by.
fn place(members: &[Member], index: usize) -> Option<(Vec<&str>, bool)> {
    members.iter().find_map(|member| match &member.who {
        Who::Datacenter(i) => (*i == index).then_some((Vec::new(), member.standby)),
        Who::Pool(pool) => {
            let (mut path, standby) = place(&pool.members, index)?;
            path.insert(0, &pool.name);
            Some((path, standby || member.standby))
        }
    })
}

fn candidates(snapshot: &Snapshot, steer: &Steer, id: SteerId, plan: &Plan, client: &Client) -> Vec<Value> {
    let config = &snapshot.topology.config;
    let ranking = plan.ranking(client);
    let picks = plan.choose(client);
    let one = |(index, (seat, dc)): (usize, (&Seat, &Datacenter))| {
        let place_in_rank = ranking.iter().position(|r| usize::from(r.index) == index);
        let rank = place_in_rank.and_then(|r| ranking.get(r));
        let chosen = picks.picks().iter().any(|p| usize::from(*p) == index);
        let candidate = snapshot.steers.get(id.index()).and_then(|s| s.candidates.get(index));
        let held_by = candidate.and_then(|c| c.held_by).and_then(|s| config.services.get(s.index()));
        let (path, standby) = place(&steer.members, index).unwrap_or_default();
        json!({
            "datacenter": dc.name,
            "pool": path,
            "standby": standby,
            "addresses": dc.addresses,
            "weight": seat.configured,
            "effective": seat.effective as f64 / 1_000.0,
            "state": seat.state,
            "planned": seat.planned,
            "held_by": held_by.map(|s| &s.name),
            "fenced_off": !plan.lets(index, client),
            "near": plan.is_near(index, client),
            "shed": f64::from(seat.shed) / 1_000.0,
            "group": rank.map(|r| match (r.spilled, r.near) {
                (true, _) => "spilled",
                (false, 0) => "first",
                (false, 1) => "rest",
                (false, _) => "shed",
            }),
            "rank": place_in_rank.map(|r| r + 1),
            "chosen": chosen,
            "excluded": if chosen { None } else { Some(excluded(seat, plan.lets(index, client), standby, rank)) },
        })
    };
    plan.seats().iter().zip(config.candidates(steer)).enumerate().map(one).collect()
}

/// Why a candidate is not in the answer: the first that applies, in the order of evaluation.
const fn excluded(seat: &Seat, fenced_in: bool, standby: bool, rank: Option<&Rank>) -> &'static str {
    match (seat.state, rank) {
        (_, Some(Rank { spilled: true, .. })) => {
            "it is short of capacity, and this client is among those that leave it"
        }
        (_, Some(_)) => "others rank before it",
        (DcState::AdminDown, _) => "an operator took it down",
        (DcState::Drained, _) if seat.planned => "its schedule drains it",
        (DcState::Drained, _) => "an operator drains it",
        _ if !fenced_in => "this client's fence keeps it out",
        (DcState::Failed, _) => "too little of it is healthy",
        (DcState::Absent, _) => "the service has no backend there",
        _ if seat.configured == 0 => "its weight is 0",
        _ if seat.effective == 0 => "no weight is left of it",
        _ if standby => "it stands by while others serve",
        _ => "its pool has failed or has no weight, and others serve",
    }
}

fn answered(table: &Table, name: &[u8], wanted: u16, client: IpAddr, ecs: bool, prefix: (u8, u8)) -> Value {
    let options = if ecs { subnet(client, prefix) } else { Vec::new() };
    let mut query = lookup::query(name, wanted, 0, 0, &options);
    // A resolver does not ask an authority to recurse.
    query[2] = 0;
    let mut out = vec![0; MAX_TCP];
    let meta = Meta { client, transport: Transport::Tcp, now: SystemClock.wall() };
    let Outcome::Send(sent) = answer(table, &query, &meta, &mut out) else { return Value::Null };
    let Some(message) = out.get(..sent.length).and_then(text::message) else { return Value::Null };
    let [answers, authority, additional] =
        message.sections.map(|s| s.iter().map(ToString::to_string).collect::<Vec<_>>());
    json!({
        "rcode": sent.rcode.as_str(),
        "flags": message.flags,
        "answer": answers,
        "authority": authority,
        "additional": additional,
        "client_subnet": message.subnet.map(|(source, scope)| json!({ "source": source, "scope": scope })),
        "octets": sent.length,
    })
}

/// The IPv4 address that an IPv6 one stands for.
fn stands_for(client: IpAddr) -> Option<IpAddr> {
    if let IpAddr::V6(client) = client { embedded(client).map(|(inner, _)| inner.into()) } else { None }
}

/// The client subnet option of a resolver that passes on as much as we use.
fn subnet(client: IpAddr, prefix: (u8, u8)) -> Vec<u8> {
    let network = Client::new(client, prefix).network;
    let source = if network.is_ipv4() { prefix.0 } else { prefix.1 };
    let mut option = vec![0; ecs::MAX_WRITTEN];
    let length = ecs::Subnet::of(network, source).write(0, &mut option);
    option.truncate(length);
    option
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Fence, Policy, Pool};
    use crate::dns::fixture::{self, with_health, world};
    use crate::snapshot::Spill;

    #[test]
    fn a_steered_name_shows_every_candidate_and_the_answer_that_a_resolver_gets() {
        let snapshot = with_health(&world(), SteerId::new(1), |health| {
            health.candidates[2].state = DcState::Drained;
            health.candidates[2].effective = 0;
            health.ttl = 5;
        });
        let said = explain(&snapshot, "NEAR.example.test", "aaaa", "10.1.200.9".parse().unwrap());
        assert_eq!((said["found"].as_str(), said["type"].as_str()), (Some("steered"), Some("AAAA")));
        assert_eq!(said["client"]["network"], "10.1.200.0");
        let steering = &said["steering"];
        assert_eq!(
            (steering["reason"].as_str(), steering["near_leaf"].as_str()),
            (Some("near"), Some("10.1.192.0/18"))
        );
        let near = json!([{ "said": "10.1.0.0/16", "by": "configuration", "near_to": ["shenzhen"], "counts": true }]);
        assert_eq!(steering["near"], near);
        assert_eq!(
            (steering["ttl"]["seconds"].as_u64(), steering["ttl"]["why"].as_str()),
            (Some(5), Some("a change may be near"))
        );
        let of = |i: usize, member: &str| steering["candidates"][i][member].clone();
        assert_eq!((of(0, "rank"), of(0, "near"), of(0, "chosen")), (json!(1), json!(true), json!(true)));
        assert_eq!((of(1, "rank"), of(1, "near"), of(1, "chosen")), (json!(2), json!(false), json!(true)));
        assert_eq!((of(2, "rank"), of(2, "excluded")), (Value::Null, json!("an operator drains it")));
        assert_eq!(
            said["answer"]["answer"],
            json!(["NEAR.example.test. 5 IN AAAA 2001:db8:1::1", "NEAR.example.test. 5 IN AAAA 2001:db8:2::1"])
        );
        assert_eq!(said["answer"]["client_subnet"], json!({ "source": 24, "scope": 24 }));
    }

    #[test]
    fn pools_fences_standbys_and_spill_are_shown_with_what_keeps_each_out() {
        let dc = |place| Member { who: Who::Datacenter(place), weight: 0, standby: false };
        let south =
            Pool { name: "south".into(), policy: vec![Policy::Weighted], members: vec![dc(0), dc(1)], fail_below: 0.5 };
        let steer = Steer {
            members: vec![
                Member { who: Who::Pool(south), weight: 80, standby: false },
                Member { standby: true, ..dc(2) },
            ],
            fences: vec![Fence {
                clients: vec![crate::config::Locality::Net("10.9.0.0/16".parse().unwrap())],
                only: vec![1, 2],
            }],
            ..fixture::steer("www.example.test.", &[Policy::Failover])
        };
        let mut snapshot = fixture::snapshot(vec![fixture::zone("example.test.", fixture::ZONE)], vec![steer]);
        snapshot.spill = Arc::new(vec![Spill::default(), Spill { shed: 1_000, ..Spill::default() }]);
        let ask =
            |client: &str| explain(&snapshot, "www.example.test", "A", client.parse().unwrap())["steering"].clone();
        let free = ask("10.1.2.3");
        let of = |said: &Value, member: &str| -> Vec<Value> {
            (0..3).map(|i| said["candidates"][i][member].clone()).collect()
        };
        assert_eq!((&free["reason"], &free["fence"]), (&json!("spilled"), &Value::Null));
        assert_eq!(of(&free, "pool"), [json!(["south"]), json!(["south"]), json!([])]);
        assert_eq!(of(&free, "chosen"), [json!(true), json!(true), json!(false)]);
        assert_eq!(of(&free, "group"), [json!("first"), json!("spilled"), Value::Null]);
        assert_eq!(free["candidates"][2]["excluded"], "it stands by while others serve");
        assert_eq!(free["pools"][0]["pool"], "south");
        let fenced = ask("10.9.2.3");
        assert_eq!(fenced["fence"], json!({ "only": ["shanghai", "tianjin"], "on_empty": "nodata" }));
        assert_eq!(fenced["candidates"][0]["excluded"], "this client's fence keeps it out");
        assert_eq!(of(&fenced, "fenced_off"), [json!(true), json!(false), json!(false)]);
    }

    #[test]
    fn what_is_not_steered_is_explained_too() {
        let snapshot = world();
        let ask = |name: &str, rtype: &str| explain(&snapshot, name, rtype, "10.1.200.9".parse().unwrap());
        for (name, found, rcode) in [
            ("host.example.test", "static", "noerror"),
            ("x.child.example.test", "delegated", "noerror"),
            ("nope.example.test", "no such name", "nxdomain"),
            ("elsewhere.net", "not in our zones", "refused"),
        ] {
            let said = ask(name, "A");
            assert_eq!(
                (said["found"].as_str(), said["answer"]["rcode"].as_str()),
                (Some(found), Some(rcode)),
                "{name}"
            );
            assert!(said["steering"].is_null());
        }
        assert!(ask("a..b", "A")["error"].as_str().unwrap().contains("empty label"));
        assert!(ask("a", "NOPE")["error"].as_str().unwrap().contains("no type"));
        let none = fixture::without_dns();
        assert_eq!(explain(&none, "a", "A", [10, 0, 0, 1].into())["error"], "this node has no name server");
    }
}
