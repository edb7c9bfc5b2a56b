//! What the replicas say to one another: one ordered stream to each other member, and snapshots and segments
//! beside it.

mod push;
mod segment;
mod service;
mod snapshot;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use replication::{PeerMessage, SnapshotFiles};
use tokio::{runtime::Handle, sync::mpsc};

pub use service::PeerListener;

use crate::{
    channels::Channels,
    threads::{queue, replica},
};

/// Messages for one member that may wait, and the bytes of their entries. What is beyond is dropped: raft sends it
/// again.
const WAITING_MESSAGES: usize = 4_096;
const WAITING_BYTES: usize = 64 << 20;

/// Which cluster, and who in it.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The cluster.
    pub cluster_id: String,
    /// This member.
    pub me: u64,
}

/// The other members, as the replica thread sees them. Sending never waits.
pub struct Peers {
    queues: BTreeMap<u64, Queue>,
    snapshots: snapshot::Sender,
    runtime: Handle,
}

struct Queue {
    sender: mpsc::Sender<PeerMessage>,
    bytes: Arc<AtomicUsize>,
}

impl Peers {
    /// Begins to feed every other member.
    pub fn start(
        membership: Membership,
        channels: Arc<Channels>,
        files: Arc<Mutex<SnapshotFiles>>,
        replica: queue::Sender<replica::Message>,
        runtime: Handle,
    ) -> Self {
        let mut queues = BTreeMap::new();
        for peer in channels.others() {
            let (sender, messages) = mpsc::channel(WAITING_MESSAGES);
            let bytes = Arc::new(AtomicUsize::new(0));
            let stream = push::Stream {
                membership: membership.clone(),
                peer,
                channels: Arc::clone(&channels),
                messages,
                bytes: Arc::clone(&bytes),
                replica: replica.clone(),
            };
            runtime.spawn(stream.run());
            queues.insert(peer, Queue { sender, bytes });
        }
        let snapshots = snapshot::Sender { membership, channels, files, replica };
        Self { queues, snapshots, runtime }
    }

    /// Puts a message on its way; false when it was dropped.
    pub fn send(&self, message: PeerMessage) -> bool {
        let Some(queue) = self.queues.get(&message.to) else { return false };
        let size = size(&message);
        if queue.bytes.load(Ordering::Relaxed) + size > WAITING_BYTES {
            return false;
        }
        queue.bytes.fetch_add(size, Ordering::Relaxed);
        let sent = queue.sender.try_send(message).is_ok();
        if !sent {
            queue.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        sent
    }

    /// Streams the snapshot that `message` names, then the message. Whatever comes of it is reported to the replica.
    pub fn send_snapshot(&self, message: PeerMessage) {
        self.runtime.spawn(self.snapshots.clone().send(message));
    }
}

/// About so many bytes on the wire.
fn size(message: &PeerMessage) -> usize {
    message.entries.iter().map(|entry| entry.data.len() + 32).sum::<usize>() + 64
}
