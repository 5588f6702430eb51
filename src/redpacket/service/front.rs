//! What stands before every service: a limit on concurrent requests, its metrics, `/metrics`, and the name of the
//! process in every answer.
//!
//! Over the limit the answer is OVERLOADED at once, with `x-overloaded: 1`: nothing was done, and a balancer should go
//! easy. Probes and dials are not counted: a busy service is alive.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use metrics::Counter;
use tokio::sync::Semaphore;

use crate::net::stage::{Body, Next, Reply, Stage, full};
use crate::observe::{names::redpacket as names, recorder};
use crate::redpacket::model::Code;
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{TRACE_HEADER, trace_id};

/// Says which process answered.
const UPSTREAM_HEADER: &str = "x-upstream";

/// A stage with its limit.
pub struct Front {
    service: Arc<dyn Stage>,
    room: Semaphore,
    instance: Option<HeaderValue>,
    classes: [Counter; 5],
    overloaded: Counter,
}

impl Front {
    /// `service`, with at most `limit` requests in work.
    pub fn new(service: Arc<dyn Stage>, limit: usize) -> Self {
        let name = service.name();
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| names::REQUESTS_TOTAL.counter(&[name, class]));
        let overloaded = names::OVERLOADED_TOTAL.counter(&[name]);
        Self { room: Semaphore::new(limit.min(Semaphore::MAX_PERMITS)), instance: None, classes, overloaded, service }
    }

    /// With the process's name in every answer. A name that no header can carry is left out.
    #[must_use]
    pub fn named(mut self, instance: &str) -> Self {
        self.instance = HeaderValue::from_str(instance).ok();
        self
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let trace = trace_id(request.headers());
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => metrics_page(),
            (_, "/healthz" | "/fault") => self.service.handle(request, Next::end()).await,
            _ => {
                if let Ok(_permit) = self.room.try_acquire() {
                    self.service.handle(request, Next::end()).await
                } else {
                    self.overloaded.increment(1);
                    Envelope::new(Code::Overloaded, &trace).respond()
                }
            }
        };
        let class = usize::from(response.status().as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.increment(1);
        }
        if let Ok(trace) = HeaderValue::from_str(&trace) {
            response.headers_mut().insert(TRACE_HEADER, trace);
        }
        if let Some(instance) = &self.instance {
            response.headers_mut().insert(UPSTREAM_HEADER, instance.clone());
        }
        response
    }
}

impl Stage for Front {
    fn name(&self) -> &str {
        self.service.name()
    }

    fn handle<'a>(&'a self, mut request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        // One id for the answer's header and its body.
        let trace = HeaderValue::from_str(&trace_id(request.headers()));
        if let Ok(trace) = trace {
            request.headers_mut().insert(TRACE_HEADER, trace);
        }
        Box::pin(self.answer(request))
    }
}

/// A service with nothing to serve but its health: what a process is that works by itself.
pub struct Idle(&'static str);

impl Idle {
    /// One of this name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }
}

impl Stage for Idle {
    fn name(&self) -> &str {
        self.0
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        let trace = trace_id(request.headers());
        let healthy = request.method() == Method::GET && request.uri().path() == "/healthz";
        let code = if healthy { Code::Ok } else { Code::NotFound };
        Box::pin(async move { Envelope::new(code, &trace).respond() })
    }
}

fn metrics_page() -> Response<Body> {
    let mut response = Response::new(full(recorder::render()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stage::empty;
    use crate::redpacket::reply::OVERLOADED_HEADER;

    struct Slow;
    impl Stage for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }
        fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
            let slow = request.uri().path() == "/slow";
            Box::pin(async move {
                if slow {
                    std::future::pending::<()>().await;
                }
                Response::new(empty())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_its_limit_it_says_so_and_stays_alive() {
        let front = Front::new(Arc::new(Slow), 1).named("sz-slow-1");
        let ask = |path: &str| front.handle(Request::get(path).body(empty()).unwrap(), Next::end());
        let mut stuck = ask("/slow");
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), &mut stuck).await.is_err());
        let response = ask("/v1/x").await;
        assert_eq!((response.status().as_u16(), response.headers()[OVERLOADED_HEADER].as_bytes()), (503, &b"1"[..]));
        assert_eq!(response.headers()[UPSTREAM_HEADER], "sz-slow-1");
        assert!(response.headers().contains_key(TRACE_HEADER));
        assert_eq!(ask("/healthz").await.status(), 200);
        drop(stuck);
        assert_eq!(ask("/v1/x").await.status(), 200);
    }
}
