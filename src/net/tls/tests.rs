//! Files in all states of disrepair, and real handshakes in memory.

use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::base::clock::{Clock, SystemClock};
use crate::config::{ClientAuth, ClientCertificate, PassOn, Tickets, TlsVersion};
use crate::snapshot::topology::Terms;

/// An authority with a folder for what it issues.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
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
        // Told apart by its name alone, so that a list of revoked ones can name it.
        params.serial_number = Some(Self::serial(tag).into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (self.write(&format!("{tag}.pem"), &certificate.pem()), self.write(&format!("{tag}.key"), &key.serialize_pem()))
    }

    fn serial(tag: &str) -> u64 {
        crate::base::hash::bytes(1, tag.as_bytes()) >> 1
    }

    fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        let tls = UpstreamTls { name: String::new(), ca: self.path("ca.pem"), certificate: None };
        speaking(&client_config(&tls).unwrap(), protocol)
    }
}

fn load(pairs: &[(PathBuf, PathBuf)]) -> Result<Vec<Certificate>, TlsError> {
    load_certificates(&listener(pairs))
}

fn listener(pairs: &[(PathBuf, PathBuf)]) -> ListenerTls {
    ListenerTls { pairs: pairs.to_vec(), ..ListenerTls::default() }
}

fn agree(tls: &ListenerTls, before: Option<&Terms>) -> Terms {
    terms(tls, &load_certificates(tls).unwrap(), before).unwrap()
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
fn sni_chooses() {
    let ca = Authority::new();
    let pairs = [
        ca.issue("default", &["default.test"]),
        ca.issue("wild", &["*.hongbao.test"]),
        ca.issue("www", &["www.hongbao.test"]),
    ];
    let server = agree(&listener(&pairs), None).server;
    let shown = |name: &str| shake(ca.client(Protocol::Http2), &server, name).map(|(client, _)| names_shown(&client));
    assert_eq!(shown("www.hongbao.test").unwrap(), ["www.hongbao.test"]);
    assert_eq!(shown("api.hongbao.test").unwrap(), ["*.hongbao.test"]);
    assert_eq!(shown("default.test").unwrap(), ["default.test"]);
    let refused = shown("a.b.hongbao.test").unwrap_err();
    assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "a wildcard is one label: {refused}");
}

#[test]
fn both_ends_agree_on_a_protocol_and_resume() {
    let ca = Authority::new();
    let server = agree(&listener(&[ca.issue("www", &["www.test"])]), None).server;
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
    let server = agree(&listener(&[ca.issue("www", &["www.test", "127.0.0.1"])]), None).server;
    assert!(shake(ca.client(Protocol::Http1), &server, "127.0.0.1").is_ok(), "addresses are names too");
    for (client, name) in [(&ca, "other.test"), (&stranger, "www.test")] {
        let error = shake(client.client(Protocol::Http1), &server, name).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

/// A client of one version only.
fn client_of(
    ca: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<&Authority>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(read_certificates(&ca.path("ca.pem")).unwrap().remove(0)).unwrap();
    let mut hybrid = aws_lc_rs::default_provider();
    hybrid.kx_groups.insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
    let builder = ClientConfig::builder_with_provider(Arc::new(hybrid)).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match own {
        Some(own) => {
            let (chain, key) = own.issue("client", &["claim.gifts.internal"]);
            let own = load_own(&chain, &key).unwrap();
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*own.key).clone())))
        }
        None => builder.with_no_client_auth(),
    })
}

const V12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[test]
fn the_oldest_version_and_the_group_are_those_that_are_wanted() {
    let ca = Authority::new();
    let tls = listener(&[ca.issue("www", &["www.test"])]);
    let group = |tls: &ListenerTls| {
        let (client, _) = shake(client_of(&ca, ALL_VERSIONS, None), &agree(tls, None).server, "www.test").unwrap();
        client.negotiated_key_exchange_group().unwrap().name()
    };
    assert_eq!(group(&tls), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(group(&ListenerTls { post_quantum: false, ..tls.clone() }), rustls::NamedGroup::X25519);
    assert!(shake(client_of(&ca, V12, None), &agree(&tls, None).server, "www.test").is_ok());
    let strict = agree(&ListenerTls { min_version: TlsVersion::V13, ..tls }, None);
    assert!(shake(client_of(&ca, V12, None), &strict.server, "www.test").is_err());
    assert!(shake(client_of(&ca, ALL_VERSIONS, None), &strict.server, "www.test").is_ok());
}

#[test]
fn tickets_outlive_a_reload_and_a_node() {
    let ca = Authority::new();
    let own = listener(&[ca.issue("www", &["www.test"])]);
    let file = ca.write("tickets", &format!("{}\n", "0a".repeat(32)));
    let fleet =
        ListenerTls { tickets: Some(Tickets { file: file.clone(), lifetime: Duration::from_hours(1) }), ..own.clone() };
    let resumes = |one: &Terms, two: &Terms, versions: &[&'static SupportedProtocolVersion]| {
        let client = client_of(&ca, versions, None);
        shake(Arc::clone(&client), &one.server, "www.test").unwrap();
        let (again, _) = shake(client, &two.server, "www.test").unwrap();
        again.handshake_kind() == Some(HandshakeKind::Resumed)
    };
    for versions in [ALL_VERSIONS, V12] {
        let (first, other) = (agree(&own, None), agree(&own, None));
        assert!(resumes(&first, &agree(&own, Some(&first)), versions), "a reload keeps its own");
        assert!(!resumes(&first, &other, versions), "another process has others");
        let node = agree(&fleet, Some(&first));
        assert!(resumes(&node, &agree(&fleet, None), versions), "a fleet has the same");
        ca.write("tickets", &format!("{}\n{}\n", "0b".repeat(32), "0a".repeat(32)));
        assert!(resumes(&node, &agree(&fleet, Some(&node)), versions), "a key that is not the first opens");
        ca.write("tickets", &format!("{}\n", "0c".repeat(32)));
        assert!(!resumes(&node, &agree(&fleet, Some(&node)), versions), "a key that has gone does not");
        ca.write("tickets", &format!("{}\n", "0a".repeat(32)));
    }
    ca.write("tickets", "nonsense\n");
    let wrong = terms(&fleet, &load_certificates(&fleet).unwrap(), None).unwrap_err().to_string();
    assert!(wrong.starts_with(&file.display().to_string()) && wrong.contains("line 1 is no key"), "{wrong}");
}

#[test]
fn a_client_shows_who_it_is_and_a_ticket_does_not_outlive_that() {
    let (ca, staff, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let asking = |wanted, authority: &Authority| ListenerTls {
        clients: Some(ClientAuth {
            ca: vec![authority.path("ca.pem")],
            crl: Vec::new(),
            wanted,
            pass_on: PassOn::Identity,
        }),
        ..listener(&[ca.issue("www", &["www.test"])])
    };
    let now = SystemClock.wall();
    let request = agree(&asking(ClientCertificate::Request, &staff), None);
    let require = agree(&asking(ClientCertificate::Require, &staff), Some(&request));
    let others = agree(&asking(ClientCertificate::Request, &stranger), Some(&request));
    for versions in [ALL_VERSIONS, V12] {
        let known = client_of(&ca, versions, Some(&staff));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (_, server) = shake(Arc::clone(&known), &request.server, "www.test").unwrap();
            assert_eq!(server.handshake_kind(), Some(kind));
            let shown = shown(&request, &server, now).unwrap().unwrap();
            assert_eq!(shown.holder.names, [x509::San::Dns("claim.gifts.internal".into())]);
        }
        let (_, server) = shake(Arc::clone(&known), &others.server, "www.test").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert!(matches!(shown(&others, &server, now), Err(NotShown::Refused(_))), "no authority of that listener");
        let later = now + Duration::from_hours(24 * 365 * 3_000);
        assert!(matches!(shown(&request, &server, later), Err(NotShown::Refused(_))), "expired since");

        let nobody = client_of(&ca, versions, None);
        let (_, server) = shake(Arc::clone(&nobody), &request.server, "www.test").unwrap();
        assert_eq!(shown(&request, &server, now), Ok(None));
        let (_, server) = shake(Arc::clone(&nobody), &require.server, "www.test").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(shown(&require, &server, now), Err(NotShown::None), "resumed where a certificate is required");
        assert!(shake(client_of(&ca, versions, None), &require.server, "www.test").is_err(), "none at all");
        for terms in [&request, &require] {
            let refused = shake(client_of(&ca, versions, Some(&stranger)), &terms.server, "www.test").unwrap_err();
            assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "{refused}");
        }
    }
}

#[test]
fn a_revoked_certificate_is_refused() {
    let (ca, staff) = (Authority::new(), Authority::new());
    let tls = |crl: &[PathBuf]| ListenerTls {
        clients: Some(ClientAuth {
            ca: vec![staff.path("ca.pem")],
            crl: crl.to_vec(),
            wanted: ClientCertificate::Require,
            pass_on: PassOn::Nothing,
        }),
        ..listener(&[ca.issue("www", &["www.test"])])
    };
    let client = client_of(&ca, ALL_VERSIONS, Some(&staff));
    let before = agree(&tls(&[]), None);
    let (_, session) = shake(Arc::clone(&client), &before.server, "www.test").unwrap();
    assert!(
        shown(&before, &session, SystemClock.wall()).unwrap().unwrap().fields.is_empty(),
        "backends are told nothing"
    );
    let serial = Authority::serial("client");
    let list = rcgen::CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2040, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&staff.issuer).unwrap();
    let pem = staff.write("revoked.pem", &list.pem().unwrap());
    let der = staff.path("revoked.der");
    fs::write(&der, list.der()).unwrap();
    for file in [pem, der] {
        let after = agree(&tls(&[file]), Some(&before));
        let (_, session) = shake(Arc::clone(&client), &after.server, "www.test").unwrap();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Resumed));
        assert!(
            matches!(shown(&after, &session, SystemClock.wall()), Err(NotShown::Refused(_))),
            "its ticket is no way in"
        );
    }
    let wrong = tls(&[staff.write("wrong.pem", "nonsense")]);
    assert!(terms(&wrong, &load_certificates(&wrong).unwrap(), None).is_err());
}

#[test]
fn we_show_an_upstream_who_we_are() {
    let ca = Authority::new();
    let tls = ListenerTls {
        clients: Some(ClientAuth {
            ca: vec![ca.path("ca.pem")],
            crl: Vec::new(),
            wanted: ClientCertificate::Require,
            pass_on: PassOn::Identity,
        }),
        ..listener(&[ca.issue("www", &["www.test"])])
    };
    let upstream = agree(&tls, None);
    let nobody = UpstreamTls { name: "www.test".into(), ca: ca.path("ca.pem"), certificate: None };
    let edge = UpstreamTls { certificate: Some(ca.issue("edge", &[])), ..nobody.clone() };
    let config = |tls: &UpstreamTls| speaking(&client_config(tls).unwrap(), Protocol::Http1);
    assert!(shake(config(&nobody), &upstream.server, "www.test").is_err());
    let (_, session) = shake(config(&edge), &upstream.server, "www.test").unwrap();
    assert!(shown(&upstream, &session, SystemClock.wall()).unwrap().is_some(), "a client needs no name");
    let own = own_certificate(&edge).unwrap().unwrap();
    let soon = Wall(u64::try_from(date_time_ymd(2029, 12, 29).unix_timestamp()).unwrap() * 1_000);
    assert_eq!(expiring(&[own], soon).len(), 1, "its end is announced too");
    let absent = UpstreamTls { certificate: Some((ca.path("absent.pem"), ca.path("absent.key"))), ..nobody };
    assert!(client_config(&absent).unwrap_err().to_string().contains("absent.pem"));
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
