//! WebSocket over HTTP/2: extended CONNECT (RFC 8441), of a client and towards backends. In between it is what HTTP/1 has for it,
//! and passes the stages like any request.
//!
//! ```text
//!   CONNECT, :protocol = websocket  -->  GET, Upgrade: websocket, a key of ours  -->  CONNECT, :protocol = websocket
//!   200, a tunnel                   <--  101, and the proof that the key was read  <--  200
//! ```
//!
//! CONNECT for anything else stays what it is, and is refused.

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::base::task;
use crate::proxy::download::Out;
use crate::proxy::h1::tunnel;
use crate::proxy::reply::Reason;
use crate::proxy::serve::Client;
use crate::proxy::stages;
use crate::proxy::upload::Inbound;
use crate::wire::websocket;

/// Stands among the extensions of a request that was an extended CONNECT.
#[derive(Clone, Copy, Debug)]
struct Translated;

/// Whether a request with `extensions` was an extended CONNECT.
pub(in crate::proxy) fn was_connect(extensions: &Extensions) -> bool {
    extensions.get::<Translated>().is_some()
}

/// Whether `answer` proves that the key in `asked` was read.
pub(in crate::proxy) fn is_proven(asked: &HeaderMap, answer: &HeaderMap) -> bool {
    let Some(key) = asked.get(SEC_WEBSOCKET_KEY) else { return false };
    let mut proofs = answer.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let is_right = proofs.next().is_some_and(|proof| proof.as_bytes() == websocket::accept(key.as_bytes()).as_bytes());
    is_right && proofs.next().is_none()
}

/// Makes of an extended CONNECT for WebSocket what HTTP/1 has for it. `None`: it is something else, and stays it.
pub(in crate::proxy) fn translate(head: &mut Parts, client: &Client) -> Option<OnUpgrade> {
    let is_websocket = head.extensions.get::<Protocol>().is_some_and(|p| p.as_str() == "websocket");
    if head.method != Method::CONNECT || !is_websocket {
        return None;
    }
    let upgrade = head.extensions.remove::<OnUpgrade>()?;
    head.extensions.remove::<Protocol>();
    head.extensions.insert(Translated);
    head.method = Method::GET;
    let key = {
        let rng = &mut client.worker.wits().rng;
        websocket::key(rng.next_u64(), rng.next_u64())
    };
    let key = HeaderValue::try_from(key).ok()?;
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(SEC_WEBSOCKET_KEY, key);
    // A client has to say it (RFC 8441 section 5.1), and there is only one.
    head.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    Some(upgrade)
}

/// Makes an extended CONNECT of what asks for WebSocket as HTTP/1 does: there is no key.
pub(in crate::proxy) fn ask<B>(request: &mut Request<B>) {
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, CONTENT_LENGTH] {
        request.headers_mut().remove(name);
    }
}

/// Has `response` agree to an extended CONNECT as HTTP/1 does, to who has `asked`; the proof is ours to give then. False: it
/// says yes and opens no tunnel (RFC 9110 section 9.3.6).
pub(in crate::proxy) fn agree<B>(response: &mut Response<B>, asked: &HeaderMap) -> bool {
    if !response.status().is_success() {
        return true;
    }
    let proof = asked.get(SEC_WEBSOCKET_KEY).map(|key| HeaderValue::try_from(websocket::accept(key.as_bytes())));
    let Some(Ok(proof)) = proof.filter(|_| response.extensions().get::<OnUpgrade>().is_some()) else { return false };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
    true
}

/// What the client of an extended CONNECT may be told of `response`.
///
/// # Errors
/// It is a 2xx, which would be a tunnel to the client (RFC 9113 section 8.5), or a 101, and there is none.
pub(in crate::proxy) fn judge(response: Response<Out>) -> Result<Response<Out>, Reason> {
    let sounds_like_one = response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let is_one = tunnel::is_there(response.extensions());
    if sounds_like_one && !is_one { Err(Reason::NoUpgrade) } else { Ok(response) }
}

/// Takes such a request through the stages, and joins the client with who has agreed.
pub(in crate::proxy) async fn open(client: Arc<Client>, mut head: Parts, upgrade: OnUpgrade) -> Response<Out> {
    let response = stages::pass(&client, &mut head, Inbound::Empty).await;
    let (mut parts, body) = response.into_parts();
    let Some(tunnel) = tunnel::take(&mut parts.extensions) else {
        return Response::from_parts(parts, body);
    };
    parts.status = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        parts.headers.remove(name);
    }
    task::spawn("tunnel", async move {
        // Who has gone meanwhile gets no tunnel; the try ends with it.
        if let Ok(upgraded) = upgrade.await {
            tunnel::run(tunnel, &client, TokioIo::new(upgraded)).await;
        }
    })
    .detach();
    Response::from_parts(parts, Out::full(bytes::Bytes::new()))
}
