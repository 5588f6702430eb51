//! TLS on both sides, with certificates made on the spot.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{
    ClientAuth, ClientCertificate, Http3, ListenerTls, PassOn, Protocol, Requirement, SanMatch, UpstreamTls,
};
use crate::net::tls;

/// An authority, with a folder for what it issues.
pub(super) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    /// Chain and key for `name`, as files.
    pub(super) fn issue(&self, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (chain, private) =
            (self.folder.path().join(format!("{name}.pem")), self.folder.path().join(format!("{name}.key")));
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (chain, private)
    }

    pub(super) fn trusted_as(&self, name: &str) -> UpstreamTls {
        UpstreamTls { name: name.into(), ca: self.folder.path().join("ca.pem"), certificate: None }
    }

    /// A TLS connection to `edge` for `name`, which verifies that it got that.
    pub(super) async fn connect(
        &self,
        edge: &Edge,
        name: &str,
        protocol: Protocol,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = tls::speaking(&tls::client_config(&self.trusted_as(name)).unwrap(), protocol);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(config).connect(name, edge.connect().await).await
    }
}

pub(super) fn assets_of(listener: &ListenerTls) -> Assets {
    let terms = tls::terms(listener, &tls::load_certificates(listener).unwrap(), None).unwrap();
    Assets { terms: vec![Some(Arc::new(terms))], ..Assets::default() }
}

/// An edge with two certificates.
fn secure_edge(authority: &Authority, origin: &Origin) -> Edge {
    let mut config = config(&[origin.address]);
    let pairs = vec![authority.issue("one.test"), authority.issue("two.test")];
    let listener = ListenerTls { pairs, ..ListenerTls::default() };
    let assets = assets_of(&listener);
    config.listeners[0].tls = Some(listener);
    Edge::with(config, assets, Stages::default())
}

#[tokio::test]
async fn the_name_asked_for_chooses_the_certificate() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = secure_edge(&authority, &origin);
    for name in ["one.test", "two.test"] {
        let tls = authority.connect(&edge, name, Protocol::Http1).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        let _task = task::spawn("client", async { drop(connection.await) });
        let answer = Answer::of(sender.send_request(get("/")).await.unwrap()).await;
        assert_eq!(answer.body, "ok");
    }
    assert!(authority.connect(&edge, "three.test", Protocol::Http1).await.is_err(), "nobody is shown a wrong name");
    let seen = origin.request(0);
    assert_eq!(seen.headers()["x-forwarded-proto"], "https");
    // Who says nothing over TLS for a while, or speaks plaintext there, gets nothing and does no harm.
    let mut plain = edge.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut bytes)).await.unwrap();
    assert!(!bytes.starts_with(b"HTTP/"), "{bytes:?}");
}

#[tokio::test]
async fn alpn_chooses_http2() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = secure_edge(&authority, &origin);
    let tls = authority.connect(&edge, "one.test", Protocol::Http2).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let io = TokioIo::new(tls);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let _task = task::spawn("client", async { drop(connection.await) });
    for _ in 0..3 {
        let request = Request::get("https://one.test/x").body(stage::empty()).unwrap();
        assert_eq!(Answer::of(sender.send_request(request).await.unwrap()).await.body, "ok");
    }
}

#[tokio::test]
async fn backends_are_verified() {
    let authority = Authority::new();
    let (back_origin, strange) = (Origin::named("secret").await, Authority::new());
    // An edge of ours in front of the origin is a TLS backend like any other.
    let back = secure_edge(&authority, &back_origin);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (trusted, works) in [
            (authority.trusted_as("one.test"), true),
            (authority.trusted_as("other.test"), false),
            (strange.trusted_as("one.test"), false),
        ] {
            let mut config = config(&[back.address]);
            config.services[0].tls = Some(trusted.clone());
            config.services[0].protocol = protocol;
            let upstream_tls = [(trusted.clone(), tls::client_config(&trusted).unwrap())].into();
            let edge = Edge::with(config, Assets { upstream_tls, ..Assets::default() }, Stages::default());
            let answer = edge.get("/").await;
            if works {
                assert_eq!(answer.body, "secret", "{protocol:?}");
            } else {
                assert_eq!(answer.refusal(), (502, "upstream_unreachable".into()), "{protocol:?} {trusted:?}");
            }
        }
    }
}

#[tokio::test]
async fn tls_that_was_not_loaded_is_never_replaced_by_plaintext() {
    let (authority, origin) = (Authority::new(), Origin::named("secret").await);
    let mut config = config(&[origin.address]);
    config.services[0].tls = Some(authority.trusted_as("one.test"));
    let edge = Edge::new(config);
    assert_eq!(edge.get("/").await.refusal(), (500, "internal".into()));
    assert_eq!(origin.requests(), 0);
}

/// An edge whose listener asks for certificates of `staff`, with a route for all of them, one for some, and one for all.
pub(super) fn asking_edge(authority: &Authority, staff: &Authority, origin: &Origin, pass_on: PassOn) -> Edge {
    let mut config = config(&[origin.address]);
    let clients = ClientAuth {
        ca: vec![staff.folder.path().join("ca.pem")],
        crl: Vec::new(),
        wanted: ClientCertificate::Request,
        pass_on,
    };
    let listener =
        ListenerTls { pairs: vec![authority.issue("one.test")], clients: Some(clients), ..ListenerTls::default() };
    let forward = || Action::Forward(ServiceId::new(0));
    let named = Requirement::ClientNamed(vec![SanMatch::Below("staff.test".into())]);
    config.routes = vec![
        Route { requires: Some(Requirement::ClientCertificate), ..route("any", "/any", forward()) },
        Route { requires: Some(named), ..route("some", "/some", forward()) },
        route("open", "/", forward()),
    ];
    let assets = assets_of(&listener);
    config.listeners[0].http3 = Some(Http3::default());
    config.listeners[0].tls = Some(listener);
    Edge::with(config, assets, Stages::default())
}

/// A client of `edge`, which trusts `authority` and shows a certificate for `name`.
async fn shows(
    edge: &Edge,
    authority: &Authority,
    own: Option<(&Authority, &str)>,
    protocol: Protocol,
) -> std::io::Result<TlsStream<TcpStream>> {
    let certificate = own.map(|(staff, name)| staff.issue(name));
    let tls = UpstreamTls { certificate, ..authority.trusted_as("one.test") };
    let config = tls::speaking(&tls::client_config(&tls).unwrap(), protocol);
    TlsConnector::from(config).connect(ServerName::try_from("one.test").unwrap(), edge.connect().await).await
}

#[tokio::test]
async fn a_route_takes_those_who_show_who_they_are() {
    let (authority, staff, origin) = (Authority::new(), Authority::new(), Origin::named("ok").await);
    let edge = asking_edge(&authority, &staff, &origin, PassOn::Certificate);
    let statuses = async |own: Option<(&Authority, &str)>, protocol: Protocol| {
        let tls = shows(&edge, &authority, own, protocol).await.unwrap();
        let mut statuses = Vec::new();
        if protocol == Protocol::Http2 {
            let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls));
            let (mut sender, connection) = shake.await.unwrap();
            let _task = task::spawn("client", async { drop(connection.await) });
            for path in ["any", "some", "open"] {
                let request = Request::get(format!("https://one.test/{path}")).body(stage::empty()).unwrap();
                statuses.push(Answer::of(sender.send_request(request).await.unwrap()).await.status.as_u16());
            }
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
            let _task = task::spawn("client", async { drop(connection.await) });
            for path in ["/any", "/some", "/open"] {
                let mut request = get(path);
                for forged in ["client-cert", "x-client-cert-subject", "x-client-cert-verify"] {
                    request.headers_mut().insert(forged, "forged".parse().unwrap());
                }
                sender.ready().await.unwrap();
                let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
                if answer.status == StatusCode::FORBIDDEN {
                    assert_eq!(answer.refusal(), (403, "certificate_required".into()));
                }
                statuses.push(answer.status.as_u16());
            }
        }
        statuses
    };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(statuses(None, protocol).await, [403, 403, 200]);
        assert_eq!(statuses(Some((&staff, "ops.test")), protocol).await, [200, 403, 200]);
        assert_eq!(statuses(Some((&staff, "ops.staff.test")), protocol).await, [200, 200, 200]);
    }
    let nobody = origin.request(0);
    assert!(!nobody.headers().keys().any(|name| name.as_str().contains("client-cert")), "{:?}", nobody.headers());
    let ops = origin.request(2);
    assert_eq!(ops.headers()["x-client-cert-san"], "\"DNS:ops.test\"");
    assert!(ops.headers()["client-cert"].to_str().unwrap().starts_with(":MII"), "{:?}", ops.headers());
    assert_eq!(ops.headers().get_all("x-client-cert-subject").iter().count(), 1);
    assert!(!ops.headers().contains_key("x-client-cert-verify"));
}

#[tokio::test]
async fn a_certificate_of_a_strange_authority_is_no_certificate() {
    let (authority, staff, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let origin = Origin::named("ok").await;
    let edge = asking_edge(&authority, &staff, &origin, PassOn::Identity);
    let connected = shows(&edge, &authority, Some((&stranger, "ops.staff.test")), Protocol::Http1).await;
    // In TLS 1.3 a client hears of it after its own handshake.
    if let Ok(mut tls) = connected {
        let _ = tls.write_all(b"GET /open HTTP/1.1\r\nhost: one.test\r\n\r\n").await;
        let mut bytes = Vec::new();
        assert!(
            tokio::time::timeout(PATIENCE, tls.read_to_end(&mut bytes)).await.unwrap().is_err() || bytes.is_empty()
        );
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_reload_changes_the_terms_for_who_comes_in_after_it() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = secure_edge(&authority, &origin);
    assert!(authority.connect(&edge, "one.test", Protocol::Http1).await.is_ok());
    let mut config = (*edge.published.load().topology.config).clone();
    let listener = ListenerTls { pairs: vec![authority.issue("three.test")], ..ListenerTls::default() };
    let assets = assets_of(&listener);
    config.listeners[0].tls = Some(listener);
    let topology = Topology::build(Arc::new(config), assets, Some(&edge.published.load().topology));
    edge.step(Event::Reload(Box::new(topology)));
    assert!(authority.connect(&edge, "three.test", Protocol::Http1).await.is_ok());
    assert!(authority.connect(&edge, "one.test", Protocol::Http1).await.is_err());
    // A listener that has gone from the configuration lets nobody in.
    let mut config = (*edge.published.load().topology.config).clone();
    config.listeners[0].name = "other".into();
    let topology = Topology::build(Arc::new(config), Assets::default(), Some(&edge.published.load().topology));
    edge.step(Event::Reload(Box::new(topology)));
    assert!(authority.connect(&edge, "three.test", Protocol::Http1).await.is_err());
}
