//! Shutting down: what runs may finish, nothing new begins.

use super::*;

#[tokio::test]
async fn running_requests_finish_and_nothing_new_begins() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let origin = Origin::new(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            Response::new(stage::full("done"))
        }
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let (mut idle, mut busy) = (edge.connect().await, edge.http1().await);
    let load = edge.load(0);
    let answer = task_of(async move { busy.call(get("/")).await });
    eventually("the request is under way", || load.in_flight() == 1).await;
    edge.shutdown.cancel();
    let mut byte = [0];
    let closed = tokio::time::timeout(PATIENCE, idle.read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "an idle connection is closed");
    let address = edge.address;
    eventually("nobody listens any more", || std::net::TcpStream::connect(address).is_err()).await;
    gate.notify_one();
    let answer = answer.await.unwrap();
    assert_eq!(answer.body, "done");
    assert_eq!(answer.headers["connection"], "close");
    tokio::time::timeout(PATIENCE, edge.server.stopped()).await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a test wants the answer of its task")]
fn task_of<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

#[tokio::test]
async fn an_http2_client_is_told_to_go_away() {
    let origin = Origin::named("ok").await;
    let edge = Edge::new(config(&[origin.address]));
    let io = TokioIo::new(edge.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let ended = task_of(connection);
    let request = get("http://example.test/");
    assert_eq!(Answer::of(sender.send_request(request).await.unwrap()).await.body, "ok");
    edge.shutdown.cancel();
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    tokio::time::timeout(PATIENCE, edge.server.stopped()).await.unwrap();
}
