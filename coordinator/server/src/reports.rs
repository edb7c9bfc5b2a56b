//! What the members tell one another of how they stand: the newest word counts, what is lost is said again.

use std::{sync::Arc, time::Duration};

use proto::internal::{MemberReport, relay_service_client::RelayServiceClient};
use tokio::{sync::watch, time::timeout};
use tracing::debug;

use crate::channels::Channels;

/// A member that doesn't answer by then gets the next word.
const ANSWER: Duration = Duration::from_secs(1);

/// Tells every other member what `reports` says, until its sender is gone.
pub fn tell(channels: &Arc<Channels>, reports: &watch::Receiver<MemberReport>) {
    for peer in channels.others() {
        if let Some(channel) = channels.relay(peer) {
            tokio::spawn(tell_one(peer, RelayServiceClient::new(channel), reports.clone()));
        }
    }
}

async fn tell_one(
    peer: u64,
    mut client: RelayServiceClient<tonic::transport::Channel>,
    mut reports: watch::Receiver<MemberReport>,
) {
    while reports.changed().await.is_ok() {
        let report = reports.borrow_and_update().clone();
        match timeout(ANSWER, client.report(report)).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => debug!(peer, %status, "a member doesn't hear how this one stands"),
            Err(_) => debug!(peer, "a member doesn't answer"),
        }
    }
}
