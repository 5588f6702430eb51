//! The terms of a connection are those of its listener at the moment, over QUIC as over TCP.

use super::super::secure::asking_edge;
use super::*;
use crate::config::PassOn;

#[tokio::test]
async fn a_route_takes_those_who_show_who_they_are() {
    let (authority, staff, origin) = (Authority::new(), Authority::new(), Origin::named("ok").await);
    let edge = asking_edge(&authority, &staff, &origin, PassOn::Certificate);
    let statuses = async |own: Option<&str>| {
        let tls = UpstreamTls { certificate: own.map(|own| staff.issue(own)), ..authority.trusted_as(NAME) };
        let client = Client::showing(&edge, &tls, &hello(1 << 20)).await.unwrap();
        let mut statuses = Vec::new();
        for path in ["/any", "/some", "/open"] {
            let reply = client.call(&head("GET", path, &[("client-cert", "forged")])).await;
            statuses.push(reply.status().to_owned());
        }
        statuses
    };
    assert_eq!(statuses(None).await, ["403", "403", "200"]);
    assert!(!origin.request(0).headers().contains_key("client-cert"));
    assert_eq!(statuses(Some("ops.test")).await, ["200", "403", "200"]);
    assert_eq!(statuses(Some("ops.staff.test")).await, ["200", "200", "200"]);
    let ops = origin.request(1);
    assert_eq!(ops.headers()["x-client-cert-san"], "\"DNS:ops.test\"");
    assert!(ops.headers()["client-cert"].to_str().unwrap().starts_with(":MII"), "{:?}", ops.headers());
}

#[tokio::test]
async fn a_certificate_of_a_strange_authority_is_no_certificate() {
    let (authority, staff, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let origin = Origin::named("ok").await;
    let edge = asking_edge(&authority, &staff, &origin, PassOn::Identity);
    let tls = UpstreamTls { certificate: Some(stranger.issue("ops.staff.test")), ..authority.trusted_as(NAME) };
    // In TLS 1.3 a client hears of it after its own handshake.
    if let Ok(client) = Client::showing(&edge, &tls, &hello(1 << 20)).await {
        tokio::time::timeout(PATIENCE, client.connection.closed()).await.unwrap();
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_reload_changes_the_terms_for_who_comes_in_after_it() {
    let (authority, later, origin) = (Authority::new(), Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let old = Client::new(&edge, &authority).await;
    let mut config = (*edge.published.load().topology.config).clone();
    let listener = ListenerTls { pairs: vec![later.issue(NAME)], ..ListenerTls::default() };
    let assets = assets_of(&listener);
    config.listeners[0].tls = Some(listener);
    let topology = Topology::build(Arc::new(config), assets, Some(&edge.published.load().topology));
    edge.step(Event::Reload(Box::new(topology)));
    let new = Client::new(&edge, &later).await;
    for client in [&old, &new] {
        assert_eq!(client.call(&head("GET", "/", &[])).await.status(), "200");
    }
    assert!(Client::showing(&edge, &authority.trusted_as(NAME), &hello(1 << 20)).await.is_err());
    // Who must say for whom it speaks has no way to over QUIC; and a listener that is gone lets nobody in.
    for change in [
        |config: &mut Config| config.listeners[0].proxies = vec!["127.0.0.0/8".parse().unwrap()],
        |config: &mut Config| config.listeners[0].name = "other".into(),
    ] {
        let before = edge.published.load();
        let mut config = (*before.topology.config).clone();
        change(&mut config);
        let assets = Assets { terms: before.topology.assets.terms.clone(), ..Assets::default() };
        let topology = Topology::build(Arc::new(config), assets, Some(&before.topology));
        drop(before);
        edge.step(Event::Reload(Box::new(topology)));
        assert!(Client::showing(&edge, &later.trusted_as(NAME), &hello(1 << 20)).await.is_err());
    }
}
