//! The listeners and the services behind them.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use proto::internal::{peer_service_server::PeerServiceServer, relay_service_server::RelayServiceServer};
use proto::v1::{
    cluster_service_server::ClusterServiceServer, job_service_server::JobServiceServer,
    queue_service_server::QueueServiceServer, worker_service_server::WorkerServiceServer,
    worker_session_service_server::WorkerSessionServiceServer,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Server;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::layer::util::{Identity, Stack};
use tracing::error;

use crate::{
    channels,
    config::Config,
    ending::{Ending, Exit},
    front::{Front, Stored},
    http,
    listener::{self, Connection},
    member::Member,
    peers::PeerListener,
    permissions::Authorization,
    relay::Relays,
    routes::Routes,
    status::MESSAGE_BYTES,
};

/// Bound ports, before anything is served on them.
pub struct Listeners {
    grpc: TcpListener,
    peer: TcpListener,
    http: TcpListener,
}

/// Where a coordinator is served.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For clients and workers.
    pub grpc: SocketAddr,
    /// For the other members.
    pub peer: SocketAddr,
    /// For health and metrics.
    pub http: SocketAddr,
}

impl Listeners {
    /// Binds what `config` names. The error says which key.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        let bind = |field: &'static str, address: SocketAddr| async move {
            TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("`{field}`: can't listen on {address}: {error}; choose another port"),
                )
            })
        };
        Ok(Self {
            grpc: bind("listen", config.listen).await?,
            peer: bind("peer_listen", config.peer_listen).await?,
            http: bind("http_listen", config.http_listen).await?,
        })
    }

    /// The addresses as bound: port 0 has become a free one.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses { grpc: self.grpc.local_addr()?, peer: self.peer.local_addr()?, http: self.http.local_addr()? })
    }

    /// Serves `member` on all of them.
    pub fn serve(self, member: Arc<Member>, ending: &Ending) -> Result<(), tonic_reflection::server::Error> {
        let tls = member.tls();
        let room = member.config().max_connections;
        let grpc = listener::accept(self.grpc, Arc::clone(&tls.grpc), room);
        let peer = listener::accept(self.peer, Arc::clone(&tls.grpc), room);
        let web = listener::accept(self.http, Arc::clone(&tls.http), room);
        run(server(1 << 20, 4 << 20), public(&member)?, grpc, ending.clone());
        run(server(8 << 20, 16 << 20), internal(&member), peer, ending.clone());
        tokio::spawn(http::serve(member, web));
        Ok(())
    }
}

/// What clients and workers reach, with health and reflection.
fn public(member: &Arc<Member>) -> Result<Routes, tonic_reflection::server::Error> {
    let front = Front::new(Arc::clone(member), Arc::new(Stored::new(member.config())));
    macro_rules! limited {
        ($server:ident) => {
            $server::new(front.clone()).max_decoding_message_size(MESSAGE_BYTES)
        };
    }
    let reporter = HealthReporter::new();
    let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    tokio::spawn(report_health(Arc::clone(member), reporter));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::default()
        .with(limited!(JobServiceServer))
        .with(limited!(QueueServiceServer))
        .with(limited!(WorkerServiceServer))
        .with(limited!(WorkerSessionServiceServer))
        .with(limited!(ClusterServiceServer))
        .with(health)
        .with(reflection().build_v1()?)
        .with(reflection().build_v1alpha()?))
}

/// What the other members reach.
fn internal(member: &Arc<Member>) -> Routes {
    let relays = RelayServiceServer::new(Relays::new(Arc::clone(member)));
    let peers = PeerServiceServer::new(PeerListener::new(Arc::clone(member)));
    Routes::default()
        .with(relays.max_decoding_message_size(channels::MESSAGE_BYTES))
        .with(peers.max_decoding_message_size(channels::MESSAGE_BYTES))
}

fn server(stream_window: u32, connection_window: u32) -> Server<Stack<Authorization, Identity>> {
    Server::builder()
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_concurrent_streams(4_096)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 << 10)
        .layer(Authorization)
}

/// Serving while a leader is known.
async fn report_health(member: Arc<Member>, reporter: HealthReporter) {
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let Some(running) = member.wait_until_running().await else { return };
    let mut leadership = running.leadership();
    loop {
        let known = leadership.borrow_and_update().leader.is_some();
        let status = if known { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

fn run(
    server: Server<Stack<Authorization, Identity>>,
    routes: Routes,
    connections: mpsc::Receiver<Connection>,
    ending: Ending,
) {
    tokio::spawn(async move {
        let incoming = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
        if let Err(error) = server.serve_with_incoming(routes, incoming).await {
            error!(%error, "a listener ended");
        }
        ending.end(Exit::Failed);
    });
}
