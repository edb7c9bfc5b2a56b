//! Segments that the other members have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use proto::internal::{FetchSegmentRequest, peer_service_client::PeerServiceClient};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use tonic::{Code, transport::Channel};
use tracing::{debug, warn};

use super::format::Expected;
use crate::channels::{self, Channels};

/// A member that has not given it by then doesn't.
const ANSWER: Duration = Duration::from_secs(10);
/// The next member is asked when the one before was silent for so long: half a second is no load, and one that hangs
/// keeps no reader waiting.
const NEXT: Duration = Duration::from_millis(500);

/// Asks the other members, one after the other.
#[derive(Clone)]
pub struct Fetcher {
    runtime: Handle,
    cluster_id: String,
    peers: Arc<[(u64, PeerServiceClient<Channel>)]>,
    /// The one that gave the last segment, and is asked first.
    first: Arc<AtomicUsize>,
}

impl Fetcher {
    /// Over connections of its own, so that neither heartbeats nor calls wait behind a segment; made when first used.
    pub fn new(channels: &Channels, cluster_id: String, runtime: Handle) -> Self {
        let peers = channels
            .others()
            .filter_map(|peer| {
                let client = PeerServiceClient::new(channels.own(peer)?);
                Some((peer, client.max_decoding_message_size(channels::MESSAGE_BYTES)))
            })
            .collect();
        Self { runtime, cluster_id, peers, first: Arc::default() }
    }

    /// Fetches each of `wanted` and hands the outcomes to `then`, in the same order: the bytes, verified, or `None`
    /// when nobody gives them now. After the runtime's end, `then` isn't called any more.
    pub fn fetch(&self, wanted: Vec<(u32, Expected)>, then: impl FnOnce(Vec<Option<Bytes>>) + Send + 'static) {
        let fetcher = self.clone();
        self.runtime.spawn(async move {
            let mut fetched = Vec::with_capacity(wanted.len());
            for (number, expected) in wanted {
                fetched.push(fetcher.one(number, &expected).await);
            }
            then(fetched);
        });
    }

    async fn one(&self, number: u32, expected: &Expected) -> Option<Bytes> {
        let first = self.first.load(Ordering::Relaxed);
        let mut turns: FuturesUnordered<_> = (0..self.peers.len())
            .map(|turn| async move {
                let at = (first + turn) % self.peers.len();
                sleep(NEXT * turn as u32).await;
                (at, self.ask(at, number, expected).await)
            })
            .collect();
        while let Some((at, data)) = turns.next().await {
            if data.is_some() {
                self.first.store(at, Ordering::Relaxed);
                return data;
            }
        }
        None
    }

    async fn ask(&self, at: usize, number: u32, expected: &Expected) -> Option<Bytes> {
        let (peer, mut client) = self.peers.get(at).cloned()?;
        let request = FetchSegmentRequest { cluster_id: self.cluster_id.clone(), number };
        match timeout(ANSWER, client.fetch_segment(request)).await {
            Ok(Ok(response)) => {
                let data = response.into_inner().data;
                if Expected::of(&data) == *expected {
                    return Some(data);
                }
                warn!(peer, number, "a member gave another segment than the one that the state knows");
            }
            Ok(Err(status)) if status.code() == Code::NotFound => debug!(peer, number, "a member hasn't the segment"),
            Ok(Err(status)) => debug!(peer, number, %status, "a member doesn't give a segment"),
            Err(_) => debug!(peer, number, "a member doesn't answer"),
        }
        None
    }
}
