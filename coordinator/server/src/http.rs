//! What load balancers and Prometheus ask, over HTTP with a certificate like everything else.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;

use crate::{listener::Connection, member::Member};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A member is ready while it is no further behind what it knows to be committed, in entries.
const READY_LAG: u64 = 10_000;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `connections` until they end.
pub async fn serve(member: Arc<Member>, mut connections: mpsc::Receiver<Connection>) {
    while let Some(connection) = connections.recv().await {
        let member = Arc::clone(&member);
        tokio::spawn(async move {
            let named = connection.peer().identity.is_ok();
            let service = service_fn(|request| {
                let answer = if named {
                    answer(&member, &request)
                } else {
                    text(StatusCode::FORBIDDEN, "unknown certificate\n")
                };
                async { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 << 10);
            // Garbage, or gone in the middle: nobody else is touched.
            let _ = builder.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

fn answer(member: &Member, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match readiness(member) {
            Ok(body) => text(StatusCode::OK, body),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/leaderz" => match member.running() {
            Ok(running) if running.leadership().borrow().leading => text(StatusCode::OK, "leading\n"),
            _ => text(StatusCode::SERVICE_UNAVAILABLE, "not leading\n"),
        },
        "/metrics" => {
            let body = member.metrics().render(member.running().ok().as_deref());
            let mut response = Response::new(Full::new(Bytes::from(body)));
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(OPENMETRICS));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /leaderz and /metrics\n"),
    }
}

fn readiness(member: &Member) -> Result<&'static str, &'static str> {
    let running = member.running().map_err(|_| "not bootstrapped: run `millgrid cluster bootstrap`\n")?;
    let status = running.replica_status();
    if status.leader.is_none() {
        return Err("no leader is known\n");
    }
    if running.applied_index() + READY_LAG < status.commit_index {
        return Err("catching up\n");
    }
    // As a way in it is as good as any.
    let low = "ready, but the disk is almost full: new jobs are refused while this coordinator leads\n";
    Ok(if running.disk().is_low() { low } else { "ready\n" })
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
