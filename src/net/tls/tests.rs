//! Files in all states of disrepair, and real handshakes in memory.

use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::config::{Balance, Config, Listener};
use crate::decide::world::world;
use crate::snapshot::topology::Assets;
use crate::snapshot::{Snapshot, Topology};

/// An authority with a folder for what it issues.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Issues a certificate for `names`; the files are `{tag}.pem` and `{tag}.key`.
    fn issue(&self, tag: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_after = date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (self.write(&format!("{tag}.pem"), &certificate.pem()), self.write(&format!("{tag}.key"), &key.serialize_pem()))
    }

    fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        let tls = UpstreamTls { name: String::new(), ca: self.path("ca.pem"), certificate: None };
        speaking(&client_config(&tls).unwrap(), protocol)
    }
}

fn load(pairs: &[(PathBuf, PathBuf)]) -> Result<Vec<Certificate>, TlsError> {
    load_certificates(&ListenerTls { pairs: pairs.to_vec(), ..ListenerTls::default() })
}

/// A snapshot with listeners of these names, each with its certificates.
fn snapshot(listeners: &[(&str, Vec<Certificate>)]) -> Snapshot {
    let config = Config {
        listeners: listeners.iter().map(|(name, _)| Listener { name: (*name).into(), ..Listener::default() }).collect(),
        ..Config::default()
    };
    let assets = Assets { certificates: listeners.iter().map(|(_, c)| c.clone()).collect(), ..Assets::default() };
    let mut snapshot = world(Balance::P2c, &[]);
    snapshot.topology = Arc::new(Topology::build(Arc::new(config), assets, None));
    snapshot
}

/// Shakes hands until neither side has anything more to say.
fn shake(
    client: Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, name.to_owned().try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

fn names_shown(client: &ClientConnection) -> Vec<String> {
    x509::facts(&client.peer_certificates().unwrap()[0]).unwrap().names
}

#[test]
fn sni_chooses_and_a_reload_needs_no_new_listener() {
    let ca = Authority::new();
    let pairs = [
        ca.issue("default", &["default.test"]),
        ca.issue("wild", &["*.hongbao.test"]),
        ca.issue("www", &["www.hongbao.test"]),
    ];
    let certificates = load(&pairs).unwrap();
    let published = Arc::new(Published::new(snapshot(&[("public", certificates.clone())])));
    let server = server_config(Arc::clone(&published), ListenerId::new(0)).unwrap();
    let shown = |name: &str| shake(ca.client(Protocol::Http2), &server, name).map(|(client, _)| names_shown(&client));
    assert_eq!(shown("www.hongbao.test").unwrap(), ["www.hongbao.test"]);
    assert_eq!(shown("api.hongbao.test").unwrap(), ["*.hongbao.test"]);
    assert_eq!(shown("default.test").unwrap(), ["default.test"]);
    let refused = shown("a.b.hongbao.test").unwrap_err();
    assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "a wildcard is one label: {refused}");

    let renewed = load(&[ca.issue("new", &["www.hongbao.test", "new.test"])]).unwrap();
    published.publish(snapshot(&[("other", certificates), ("public", renewed)]));
    assert_eq!(shown("new.test").unwrap(), ["www.hongbao.test", "new.test"], "found by name at another place");
    published.publish(snapshot(&[]));
    assert!(shown("new.test").is_err(), "a listener that has gone serves nobody");
}

#[test]
fn both_ends_agree_on_a_protocol_and_resume() {
    let ca = Authority::new();
    let certificates = load(&[ca.issue("www", &["www.test"])]).unwrap();
    let published = Arc::new(Published::new(snapshot(&[("public", certificates)])));
    let server = server_config(published, ListenerId::new(0)).unwrap();
    for (protocol, alpn) in [(Protocol::Http2, &b"h2"[..]), (Protocol::Http1, &b"http/1.1"[..])] {
        let config = ca.client(protocol);
        let (first, _) = shake(Arc::clone(&config), &server, "www.test").unwrap();
        assert_eq!(first.alpn_protocol(), Some(alpn));
        assert_eq!(first.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        let (second, _) = shake(config, &server, "www.test").unwrap();
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn a_client_verifies_the_name_and_the_authority() {
    let (ca, stranger) = (Authority::new(), Authority::new());
    let certificates = load(&[ca.issue("www", &["www.test", "127.0.0.1"])]).unwrap();
    let published = Arc::new(Published::new(snapshot(&[("public", certificates)])));
    let server = server_config(published, ListenerId::new(0)).unwrap();
    assert!(shake(ca.client(Protocol::Http1), &server, "127.0.0.1").is_ok(), "addresses are names too");
    for (client, name) in [(&ca, "other.test"), (&stranger, "www.test")] {
        let error = shake(client.client(Protocol::Http1), &server, name).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn broken_files_are_named_with_a_remedy() {
    let ca = Authority::new();
    let (good, good_key) = ca.issue("good", &["www.test"]);
    let (_, other_key) = ca.issue("other", &["www.test"]);
    let (nameless, nameless_key) = ca.issue("nameless", &[]);
    let empty = ca.write("empty.pem", "");
    let cut = ca.write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB");
    let garbage = ca.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let odd_key = ca.write("odd.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let absent = ca.path("absent.pem");
    let cases: [(&PathBuf, &PathBuf, &PathBuf, &str); 9] = [
        (&absent, &good_key, &absent, "check that it exists"),
        (&good, &absent, &absent, "check that it exists"),
        (&empty, &good_key, &empty, "no certificate in it"),
        (&good, &good, &good, "no private key in it"),
        (&cut, &good_key, &cut, "broken PEM"),
        (&garbage, &good_key, &garbage, "cannot be used"),
        (&good, &odd_key, &odd_key, "cannot be used"),
        (&good, &other_key, &other_key, "is not the key of"),
        (&nameless, &nameless_key, &nameless, "no subjectAltName"),
    ];
    for (chain, key, named, says) in cases {
        let error = load(&[(chain.clone(), key.clone())]).unwrap_err().to_string();
        assert!(error.starts_with(&named.display().to_string()) && error.contains(says), "{error}");
    }
    for (file, says) in
        [(&absent, "check that it exists"), (&empty, "no certificate"), (&garbage, "no usable authority")]
    {
        let error = client_config(&UpstreamTls { name: "x".into(), ca: file.clone(), certificate: None })
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&file.display().to_string()) && error.contains(says), "{error}");
    }
}

#[test]
fn an_end_is_announced() {
    let ca = Authority::new();
    let certificates = load(&[ca.issue("www", &["www.test"])]).unwrap();
    let at = |y, m, d| Wall(u64::try_from(date_time_ymd(y, m, d).unix_timestamp()).unwrap() * 1_000);
    let said = |now| expiring(&certificates, now).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(said(at(2029, 12, 1)), "");
    assert!(said(at(2029, 12, 29)).contains("for www.test expires in 3 days"), "{}", said(at(2029, 12, 29)));
    assert!(said(at(2030, 1, 2)).contains("has expired"), "{}", said(at(2030, 1, 2)));
}

#[test]
fn of_equals_the_first_and_the_verifiable_is_taken() {
    let ca = Authority::new();
    let pairs = [ca.issue("a", &["x.test"]), ca.issue("b", &["www.test"]), ca.issue("c", &["www.test"])];
    let certificates = load(&pairs).unwrap();
    let index = |name: Option<&str>, verifiable: fn(&dyn rustls::sign::SigningKey) -> bool| {
        let chosen = choose(&certificates, name, verifiable).unwrap();
        certificates.iter().position(|c| Arc::ptr_eq(&c.key, &chosen.key))
    };
    assert_eq!(index(Some("WWW.test."), |_| true), Some(1));
    assert_eq!(index(None, |_| true), Some(0));
    assert_eq!(index(Some("unknown.test"), |_| false), Some(0));
    let third = Arc::as_ptr(&certificates[2].key.key).cast::<()>();
    let only_third = |key: &dyn rustls::sign::SigningKey| std::ptr::from_ref(key).cast::<()>() == third;
    let chosen = choose(&certificates, Some("www.test"), only_third).unwrap();
    assert!(Arc::ptr_eq(&chosen.key, &certificates[2].key));
    assert!(choose(&[], None, |_| true).is_none());
}
