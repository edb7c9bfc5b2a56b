//! A client's connection with nothing around it: HTTP/2 over TLS, one request after the other. What a client library
//! adds (queues between tasks, reconnecting, time limits) would be measured with the grid, on the same two cores.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http_body::Frame;
use http_body_util::BodyExt;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{body::Body, codegen::Service};

/// Of each stream, and of all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// An open connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
}

impl Connection {
    /// Connects to `address` (host and port) as the holder of `tls`' certificate.
    pub async fn open(address: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let (host, _) = address.rsplit_once(':').context("an address without a port")?;
        let tcp = TcpStream::connect(address).await.context("no connection")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await.context("no TLS")?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .context("no HTTP/2")?;
        // Its end is seen by whoever calls.
        tokio::spawn(connection);
        Ok(Self { requests })
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Answer>;
    type Error = h2::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, h2::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut requests = self.requests.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // What is sent is one message, and fits into the window.
            let message = body.collect().await.map_err(|_| h2::Error::from(h2::Reason::CANCEL))?.to_bytes();
            std::future::poll_fn(|cx| requests.poll_ready(cx)).await?;
            let (response, mut stream) = requests.send_request(http::Request::from_parts(head, ()), false)?;
            stream.send_data(message, true)?;
            Ok(response.await?.map(|stream| Answer { stream, ended: false }))
        })
    }
}

/// The body of a response.
pub struct Answer {
    stream: RecvStream,
    /// All data is there; the trailers come next.
    ended: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => {
                    let data = data?;
                    self.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }
}
