//! What an embedder plugs in: filters and upstreams in this process.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::Frame;

use super::*;
use crate::net::stage::{BodyError, Next, Reply, Stage};

/// Marks requests on their way in and responses on their way out; refuses what it is told to.
struct Mark(&'static str);

impl Stage for Mark {
    fn name(&self) -> &str {
        self.0
    }

    fn handle<'a>(&'a self, mut request: Request<Body>, next: Next<'a>) -> Reply<'a> {
        Box::pin(async move {
            assert!(request.extensions().get::<crate::proxy::Caller>().is_some());
            if request.uri().path() == "/refused" {
                return Response::builder().status(418).body(stage::full(self.0)).unwrap();
            }
            request.headers_mut().append("x-mark", self.0.parse().unwrap());
            let mut response = next.run(request).await;
            response.headers_mut().append("x-mark", self.0.parse().unwrap());
            response
        })
    }
}

/// Gives back the body that it gets, in capitals.
struct Shout;

impl Stage for Shout {
    fn name(&self) -> &'static str {
        "shout"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(async move {
            let from = request.headers()["x-forwarded-for"].clone();
            match request.into_body().collect().await {
                Ok(whole) => {
                    let mut response = Response::new(stage::full(whole.to_bytes().to_ascii_uppercase()));
                    response.headers_mut().insert("x-from", from);
                    response
                }
                Err(_) => Response::builder().status(413).body(stage::empty()).unwrap(),
            }
        })
    }
}

fn marks(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all("x-mark").iter().map(|v| v.to_str().unwrap()).collect()
}

#[tokio::test]
async fn filters_stand_around_everything_in_their_order() {
    let origin = Origin::named("ok").await;
    let stages = Stages { filters: vec![Arc::new(Mark("outer")), Arc::new(Mark("inner"))], ..Stages::default() };
    let mut config = config(&[origin.address]);
    config.services.push(service("empty", &[]));
    config.routes.push(route("nobody", "/nobody", Action::Forward(ServiceId::new(1))));
    let edge = Edge::with(config, Assets::default(), stages);
    let mut caller = edge.http1().await;
    let answer = caller.call(get("/")).await;
    assert_eq!((answer.body.as_ref(), marks(&answer.headers)), (b"ok".as_slice(), vec!["inner", "outer"]));
    assert_eq!(marks(origin.request(0).headers()), ["outer", "inner"]);
    let answer = caller.call(get("/refused")).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (418, b"outer".as_slice()));
    let answer = caller.call(get("/nobody")).await;
    assert_eq!(answer.refusal(), (503, "service_unavailable".into()));
    assert_eq!(marks(&answer.headers), ["inner", "outer"], "filters see refusals too");
    assert_eq!(edge.load(0).in_flight(), 0);
}

#[tokio::test]
async fn a_service_may_live_in_this_process() {
    let stages = Stages { upstreams: [("main".into(), Arc::new(Shout) as _)].into(), ..Stages::default() };
    let mut config = config(&[]);
    config.routes[0].max_body = 10;
    let edge = Edge::with(config, Assets::default(), stages);
    let mut caller = edge.http1().await;
    let answer = caller.call(post("/", "hello")).await;
    assert_eq!((&answer.body[..], &answer.headers["x-from"]), (b"HELLO".as_slice(), &"127.0.0.1".parse().unwrap()));
    assert_eq!(caller.call(post("/", "hello hello")).await.refusal(), (413, "body_too_large".into()));
}

/// Begins a response, and breaks off when it is asked for more; a moment later, so that nothing of it has gone out by then.
struct Stutter(u32);

impl http_body::Body for Stutter {
    type Data = Bytes;
    type Error = BodyError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Ready(Some(Ok(Frame::data("hello".into())))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err("that is all".into()))),
        }
    }
}

impl Stage for Stutter {
    fn name(&self) -> &'static str {
        "stutter"
    }

    fn handle<'a>(&'a self, _: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(async { Response::new(Self(0).boxed_unsync()) })
    }
}

#[tokio::test]
async fn what_was_said_before_it_broke_off_arrives() {
    let stages = Stages { upstreams: [("main".into(), Arc::new(Stutter(0)) as _)].into(), ..Stages::default() };
    let edge = Edge::with(config(&[]), Assets::default(), stages);
    let mut tcp = edge.connect().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut all)).await.unwrap().unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 ") && all.ends_with("\r\n\r\n5\r\nhello\r\n"), "{all:?}: a part, and no end");
}
