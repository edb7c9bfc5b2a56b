use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{service::Endpoint, store::Store};

/// How long requests that are being answered may go on after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(1);

/// The one key pair whose SigV4 signatures are accepted.
#[derive(Clone)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID` of callers.
    pub access_key: String,
    /// `AWS_SECRET_ACCESS_KEY` of callers.
    pub secret_key: String,
}

/// Why the endpoint can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The endpoint is for this machine alone: it speaks plain HTTP.
    #[error("the S3 endpoint serves loopback addresses only, not {0}")]
    NotLoopback(SocketAddr),
    /// Another process serves this folder: it would delete our temporary files, and we its.
    #[error("another process serves the S3 folder {0}")]
    InUse(PathBuf),
    /// The folder can't be prepared.
    #[error("the S3 folder {path} can't be used: {source}")]
    Root {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The listener has no address.
    #[error("the S3 listener is not usable: {0}")]
    Listener(#[source] io::Error),
}

/// Serves the folder `root` until `shutdown` resolves; then lets requests end for up to a second.
///
/// # Errors
///
/// When `listener` is not on a loopback address, or `root` can't be created, locked or written.
pub async fn serve(
    listener: TcpListener,
    root: PathBuf,
    credentials: Credentials,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let address = listener.local_addr().map_err(Failure::Listener)?;
    if !address.ip().is_loopback() {
        return Err(Failure::NotLoopback(address));
    }
    let store = Arc::new(Store::open(root)?);
    let mut service = S3ServiceBuilder::new(Endpoint::new(store));
    service.set_auth(SimpleAuth::from_single(credentials.access_key, credentials.secret_key));
    accept(listener, service.build(), shutdown).await;
    Ok(())
}

async fn accept(listener: TcpListener, service: S3Service, shutdown: impl Future<Output = ()>) {
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Small answers must not wait for an acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(TokioIo::new(stream), service.clone(), stopped.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end give them back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(stop);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

async fn connection(stream: TokioIo<tokio::net::TcpStream>, service: S3Service, mut stopped: watch::Receiver<()>) {
    let server = Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(stream, service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %error, "a connection ended badly");
    }
}
