//! Idle connections over HTTP/3, for what a process cannot have in files: a hundred come from a socket, and the edge answers
//! all of them through its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, SendStream, TransportConfig};
use rustls::pki_types::CertificateDer;

use crate::attack::Attack;

/// The name in the edge's certificate.
pub const NAME: &str = "siege.test";
/// Connections from one address.
const EACH: usize = 100;
/// A control stream (0) with empty SETTINGS (4), RFC 9114 section 6.2.1.
const SETTINGS: &[u8] = &[0, 4, 0];
/// HEADERS with `:method: GET`, `:scheme: https`, `:path: /` of QPACK's static table, and `:authority: siege.test` (RFC 9204).
const REQUEST: &[u8] = b"\x01\x11\0\0\xd1\xd7\xc1\x50\x0asiege.test";

/// Shakes hands, asks once each and keeps `count` connections to `target` until the attack is over.
pub async fn idle(attack: &Attack, target: SocketAddr, trusted: &CertificateDer<'static>, count: usize) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    // Silence ends a connection after a minute on either side.
    transport.keep_alive_interval(Some(Duration::from_secs(25)));
    config.transport_config(Arc::new(transport));
    let mut opening = tokio::task::JoinSet::new();
    for group in 0..count.div_ceil(EACH) {
        let [high, low] = (group as u16).to_be_bytes();
        let mut endpoint = Endpoint::client(SocketAddr::from(([127, 89, high, low.max(1)], 0))).unwrap();
        endpoint.set_default_client_config(config.clone());
        for _ in group * EACH..count.min((group + 1) * EACH) {
            // A worker has 64 handshakes under way.
            while opening.len() > 48 {
                opening.join_next().await;
            }
            let (attack, endpoint) = (attack.clone(), endpoint.clone());
            opening.spawn(async move {
                let mut asked = ask(&endpoint, target).await;
                for _ in 0..5 {
                    if asked.is_none() {
                        asked = ask(&endpoint, target).await;
                    }
                }
                let Some((connection, control)) = asked else { return };
                attack.deeds.open.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    let ended = attack.over.run_until_cancelled(connection.closed()).await;
                    attack.deeds.cut.fetch_add(u64::from(ended.is_some()), Relaxed);
                    attack.deeds.open.fetch_sub(1, Relaxed);
                    drop(control);
                });
            });
        }
    }
    opening.join_all().await;
}

/// A connection that has been answered once, and its control stream, which must not end before it.
async fn ask(endpoint: &Endpoint, target: SocketAddr) -> Option<(Connection, SendStream)> {
    let asked = async {
        let connection = endpoint.connect(target, NAME).ok()?.await.ok()?;
        let mut control = connection.open_uni().await.ok()?;
        control.write_all(SETTINGS).await.ok()?;
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(REQUEST).await.ok()?;
        send.finish().ok()?;
        receive.read_to_end(4_096).await.ok()?;
        Some((connection, control))
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.ok()?
}
