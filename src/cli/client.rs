//! Speaks to the admin API of one node, or of all nodes of a fleet at once. One request, one connection, one limit of time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};

use crate::admin::Problem;
use crate::admin::report::State;
use crate::base::task;

/// How long a node may take to accept the connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long it may take to answer; a reload may take 30 s, an upgrade 38 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);
/// Largest answer: `/v1/health` of tens of thousands of backends.
const MAX_ANSWER: usize = 64 << 20;
/// Nodes spoken to at a time.
const AT_A_TIME: usize = 32;

/// Where the admin API is; the same for every command that speaks to it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Admin {
    /// Admin API of a node (host:port); several: the first that answers is asked. It names its whole fleet.
    #[arg(
        long,
        value_name = "ADDR",
        env = "SPRINGTIDE_ADMIN",
        value_delimiter = ',',
        default_value = "127.0.0.1:9900"
    )]
    admin: Vec<String>,
    /// File with the bearer token of the admin API.
    #[arg(long, value_name = "FILE", env = "SPRINGTIDE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Why a node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ClientError {
    /// Nobody is there.
    #[error("no admin API at {address} ({cause}): is the node running? --admin ADDR asks another one")]
    Absent {
        /// Where.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// It took too long.
    #[error("{address} did not answer within {seconds} s: look at its log")]
    Late {
        /// Where.
        address: String,
        /// For how long it was waited for.
        seconds: u64,
    },
    /// The node said no.
    #[error("{}\nhint: {}", .problem.error, .problem.hint)]
    Refused {
        /// What it said.
        problem: Problem,
    },
    /// Something else listens there.
    #[error("what listens at {address} is not the admin API of this version of springtide (status {status})")]
    Strange {
        /// Where.
        address: String,
        /// The status that it gave.
        status: u16,
    },
    /// The token cannot be read.
    #[error("the token in {file} cannot be read: {cause}")]
    Token {
        /// The file.
        file: String,
        /// Why.
        cause: String,
    },
    /// This process cannot start a runtime.
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

impl ClientError {
    /// The error beside the name of its node: without the name, on one line.
    pub(super) fn brief(&self) -> String {
        let text = match self {
            Self::Absent { cause, .. } => cause.clone(),
            Self::Late { seconds, .. } => format!("no answer within {seconds} s"),
            Self::Refused { problem } => problem.error.clone(),
            other => other.to_string(),
        };
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// What to do, where the node itself has said so; and what its error says beyond the first line.
    pub(super) fn rest(&self) -> Option<String> {
        let Self::Refused { problem } = self else { return None };
        let hint = format!("hint: {}", problem.hint);
        Some(problem.error.lines().skip(1).chain([hint.as_str()]).collect::<Vec<_>>().join("\n"))
    }
}

/// What a node is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    path: String,
    body: Bytes,
}

impl Ask {
    /// `GET path`.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Bytes::new() }
    }

    /// `method path` without a body.
    pub(super) fn bare(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: Bytes::new() }
    }

    /// `method path` with a body.
    pub(super) fn send(method: Method, path: &str, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { method, path: path.to_owned(), body: body.into() }
    }
}

/// A client with its runtime.
pub(super) struct Client {
    runtime: Runtime,
    admin: Vec<String>,
    token: Option<HeaderValue>,
}

impl Client {
    /// A client for these nodes.
    pub(super) fn new(admin: &Admin) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let token = admin.token_file.as_ref().map(token).transpose()?;
        Ok(Self { runtime, admin: admin.admin.clone(), token })
    }

    /// Asks the first node that answers; gives its address, too.
    pub(super) fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<(String, T), ClientError> {
        let mut last = None;
        for address in &self.admin {
            let answer = self.runtime.block_on(exchange(address, self.token.as_ref(), ask));
            match answer {
                Ok(bytes) => return Ok((address.clone(), read(address, &bytes)?)),
                Err(error @ (ClientError::Absent { .. } | ClientError::Late { .. })) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Absent { address: "--admin".into(), cause: "no address".into() }))
    }

    /// The state of the first node that answers.
    pub(super) fn state(&self) -> Result<(String, State), ClientError> {
        self.ask(&Ask::get("/v1/state"))
    }

    /// Asks every node at once; answers in the order of `nodes`.
    pub(super) fn ask_all<T: DeserializeOwned>(&self, nodes: &[String], ask: &Ask) -> Vec<Result<T, ClientError>> {
        let lost = |node: &str| ClientError::Absent { address: node.to_owned(), cause: "the request was lost".into() };
        self.runtime.block_on(async {
            let seats = Arc::new(Semaphore::new(AT_A_TIME));
            let asked: Vec<_> = nodes.iter().map(|node| self.begin(node.clone(), ask.clone(), &seats)).collect();
            let mut answers = Vec::with_capacity(asked.len());
            for (node, (answer, _task)) in nodes.iter().zip(asked) {
                let bytes = answer.await.unwrap_or_else(|_| Err(lost(node)));
                answers.push(bytes.and_then(|bytes| read(node, &bytes)));
            }
            answers
        })
    }

    fn begin(&self, node: String, ask: Ask, seats: &Arc<Semaphore>) -> (Answering, task::Task) {
        let (tell, told) = oneshot::channel();
        let (token, seats) = (self.token.clone(), Arc::clone(seats));
        let asking = task::spawn("ask a node", async move {
            let _seat = seats.acquire_owned().await;
            // Nobody listens any more where the command has ended early.
            let _ = tell.send(exchange(&node, token.as_ref(), &ask).await);
        });
        (told, asking)
    }
}

/// The state of the node at `address`, from within a runtime.
pub(super) async fn state(address: &str) -> Result<State, ClientError> {
    read(address, &exchange(address, None, &Ask::get("/v1/state")).await?)
}

type Answering = oneshot::Receiver<Result<Bytes, ClientError>>;

/// The nodes that `state`, read at `address`, names as its fleet. A node that listens everywhere does not know by which
/// address it is reached: then it is the one that was asked.
pub(super) fn fleet(address: &str, state: &State) -> Vec<String> {
    let nodes = state.fleet.iter();
    nodes.map(|n| if n.ip().is_unspecified() { address.to_owned() } else { n.to_string() }).collect()
}

fn token(file: &PathBuf) -> Result<HeaderValue, ClientError> {
    let unreadable = |cause: String| ClientError::Token { file: file.display().to_string(), cause };
    let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
    let mut token = HeaderValue::from_str(&format!("Bearer {}", text.trim())).map_err(|e| unreadable(e.to_string()))?;
    token.set_sensitive(true);
    Ok(token)
}

fn read<T: DeserializeOwned>(address: &str, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|_| ClientError::Strange { address: address.to_owned(), status: 200 })
}

async fn exchange(address: &str, token: Option<&HeaderValue>, ask: &Ask) -> Result<Bytes, ClientError> {
    let absent = |cause: String| ClientError::Absent { address: address.to_owned(), cause };
    let late = |limit: Duration| ClientError::Late { address: address.to_owned(), seconds: limit.as_secs() };
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| absent("no connection within 2 s".into()))?.map_err(|e| absent(plain(&e)))?;
    let answer = tokio::time::timeout(ANSWER_WITHIN, talk(address, stream, token, ask)).await;
    let (status, body) = answer.map_err(|_| late(ANSWER_WITHIN))??;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice(&body) {
        Ok(problem) => Err(ClientError::Refused { problem }),
        Err(_) => Err(ClientError::Strange { address: address.to_owned(), status: status.as_u16() }),
    }
}

async fn talk(
    address: &str,
    stream: TcpStream,
    token: Option<&HeaderValue>,
    ask: &Ask,
) -> Result<(StatusCode, Bytes), ClientError> {
    let strange = || ClientError::Strange { address: address.to_owned(), status: 0 };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| strange())?;
    // Its errors show in the answer; the connection ends with this call.
    let _connection = task::spawn("admin client", async move {
        let _ = connection.await;
    });
    let mut request = Request::builder().method(ask.method.clone()).uri(ask.path.as_str()).header(HOST, address);
    if !ask.body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(|_| strange())?;
    let response = sender.send_request(request).await.map_err(|_| strange())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|_| strange())?;
    Ok((status, body.to_bytes()))
}

/// What the system said, without its number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}

/// Percent-encodes a value for a query (RFC 3986 section 2.3: the unreserved characters stay).
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
        out
    })
}

fn hex(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_carry_any_text() {
        assert_eq!(encode("a-b.c_d~9"), "a-b.c_d~9");
        assert_eq!(encode("/v1?x=1&y=红 包"), "%2Fv1%3Fx%3D1%26y%3D%E7%BA%A2%20%E5%8C%85");
    }
}
