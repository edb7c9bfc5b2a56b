use std::{env, net::SocketAddr, path::PathBuf};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::failure::Failure;

/// Where to serve which folder; the credentials are in the environment, which other users can't read.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    root: PathBuf,
}

/// Serves until SIGTERM.
pub async fn run(args: ServerArgs) -> Result<(), Failure> {
    let variable = |name: &str| env::var(name).map_err(|_| Failure::Other(format!("{name} is not set")));
    let credentials = dev_s3::Credentials {
        access_key: variable("AWS_ACCESS_KEY_ID")?,
        secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
    };
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| Failure::Other(format!("can't listen on {}: {error}", args.listen)))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Failure::Other(format!("no signals: {error}")))?;
    let shutdown = async move {
        terminate.recv().await;
    };
    Ok(dev_s3::serve(listener, args.root, credentials, shutdown).await?)
}
