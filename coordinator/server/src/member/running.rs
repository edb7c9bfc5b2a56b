//! A member that knows who the members are: what its services use.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use coordinator_core::{Figures, refusal};
use proto::internal::Refusal;
use proto::v1::{self, MemberStatus};
use replication::{Input, SnapshotFiles, Standing, Status};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::{Code, Request};

use crate::{
    calls::CoreHandle,
    channels::Channels,
    disk::Disk,
    ending::Ending,
    history::{Counts, Files},
    identity::Identity,
    leadership::Leadership,
    peers::Membership,
    relay::Link,
    status,
    threads::{core::Published, queue, replica},
};

/// The digest after a given index is waited for so long.
const DIGEST_WAIT: Duration = Duration::from_secs(1);
/// A follower that is no further behind may be made leader at once.
const CAUGHT_UP: u64 = 4_096;

/// What a running member is made of.
pub(super) struct Parts {
    pub membership: Membership,
    pub members: Vec<v1::Member>,
    pub core: CoreHandle,
    pub replica: queue::Sender<replica::Message>,
    pub leadership: watch::Receiver<Leadership>,
    pub links: watch::Receiver<Option<Arc<Link>>>,
    pub channels: Arc<Channels>,
    pub snapshots: Arc<Mutex<SnapshotFiles>>,
    pub segments: Arc<Files>,
    pub history: Arc<Counts>,
    pub status: Arc<RwLock<Status>>,
    pub disk: Arc<Disk>,
    pub published: Arc<Published>,
    pub ending: Ending,
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A member that knows who the members are.
pub struct Running {
    parts: Parts,
}

impl Running {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// The cluster.
    pub fn cluster_id(&self) -> &str {
        &self.parts.membership.cluster_id
    }

    /// This member's id.
    pub fn id(&self) -> u64 {
        self.parts.membership.me
    }

    /// All members, by id.
    pub fn members(&self) -> &[v1::Member] {
        &self.parts.members
    }

    /// The core of this process.
    pub fn core(&self) -> &CoreHandle {
        &self.parts.core
    }

    /// The replica of this process.
    pub fn replica(&self) -> &queue::Sender<replica::Message> {
        &self.parts.replica
    }

    /// Who leads, now and later.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.parts.leadership.clone()
    }

    /// The stream to whoever leads, now and later.
    pub fn links(&self) -> watch::Receiver<Option<Arc<Link>>> {
        self.parts.links.clone()
    }

    /// Connections to the other members.
    pub fn channels(&self) -> &Channels {
        &self.parts.channels
    }

    /// The snapshots on this disk.
    pub fn snapshots(&self) -> &Arc<Mutex<SnapshotFiles>> {
        &self.parts.snapshots
    }

    /// The segments of the history on this disk.
    pub fn segments(&self) -> &Arc<Files> {
        &self.parts.segments
    }

    /// How many segments there are, and how many are here.
    pub fn history(&self) -> &Counts {
        &self.parts.history
    }

    /// Who can end the process.
    pub fn ending(&self) -> &Ending {
        &self.parts.ending
    }

    /// How the replica stands, as of the last 50 ms.
    pub fn replica_status(&self) -> Status {
        self.parts.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How full this member's disk is.
    pub fn disk(&self) -> &Disk {
        &self.parts.disk
    }

    /// The core's counts, as of the last 50 ms.
    pub fn figures(&self) -> Figures {
        *self.parts.published.figures.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the core has applied the log.
    pub fn applied_index(&self) -> u64 {
        *self.parts.published.applied.borrow()
    }

    pub(super) fn threads(&self) -> &Mutex<Vec<JoinHandle<()>>> {
        &self.parts.threads
    }

    /// The address of the leader, for clients; nothing if it is this member, or not known.
    pub fn other_leader_address(&self) -> Option<&str> {
        let leader = self.leadership().borrow().other_leader()?;
        self.members().iter().find(|member| member.id == leader).map(|member| member.address.as_str())
    }

    /// A member's name; its number for one that isn't known.
    pub fn name_of(&self, id: u64) -> &str {
        self.parts.members.iter().find(|member| member.id == id).map_or("unknown", |member| &member.name)
    }

    /// A member's id.
    pub fn member_named(&self, name: &str) -> Result<u64, Refusal> {
        self.parts.members.iter().find(|member| member.name == name).map(|member| member.id).ok_or_else(|| Refusal {
            field: "member".to_owned(),
            ..refusal::refusal(
                refusal::Code::NotFound,
                "NOT_FOUND",
                format!("no member is named `{name}`"),
                "see `millgrid cluster status`",
            )
        })
    }

    /// The other member whose certificate this request came with.
    pub fn peer_of<T>(&self, request: &Request<T>) -> Result<Arc<Identity>, tonic::Status> {
        let identity = request.extensions().get::<Arc<Identity>>().cloned();
        identity
            .filter(|identity| {
                self.parts.members.iter().any(|member| member.name == identity.name && member.id != self.id())
            })
            .ok_or_else(|| {
                let message = "the certificate is of none of the other members";
                status::refused(Code::PermissionDenied, "NOT_A_MEMBER", message, "see `millgrid cluster status`", "")
            })
    }

    /// Its id.
    pub fn member_named_by<T>(&self, request: &Request<T>) -> Result<u64, tonic::Status> {
        let identity = self.peer_of(request)?;
        self.member_named(&identity.name).map_err(|refused| status::from_refusal(&refused))
    }

    /// What this member knows of itself; with the digest after `digest_index` (0: the newest), if it gets there in
    /// time.
    pub async fn own_status(&self, digest_index: u64) -> Result<MemberStatus, tonic::Status> {
        let (answer, digest) = oneshot::channel();
        self.core().inbox().push_status(digest_index, answer);
        let known = timeout(DIGEST_WAIT, digest).await.ok().and_then(Result::ok);
        let status = self.replica_status();
        let applied_index = self.applied_index();
        let role = match status.standing {
            Standing::Leader => "leader",
            Standing::Follower | Standing::Candidate => "follower",
            Standing::Learner => "learner",
        };
        Ok(MemberStatus {
            id: self.id(),
            name: self.name_of(self.id()).to_owned(),
            role: role.to_owned(),
            reachable: true,
            term: status.term,
            // Read at different moments: what is applied was committed.
            commit_index: status.commit_index.max(applied_index),
            applied_index,
            ..known.unwrap_or_default()
        })
    }

    /// Asks the replica to hand leadership to the member of that name, or to the best one when it is empty.
    pub fn begin_transfer(&self, member: &str) -> Result<(), Refusal> {
        let leads = *self.parts.leadership.borrow();
        if !leads.leading {
            return Err(refusal::refusal(
                refusal::Code::Unavailable,
                refusal::NOT_LEADER,
                "this coordinator doesn't lead",
                "call again",
            ));
        }
        let to = if member.is_empty() { None } else { Some(self.member_named(member)?) };
        let status = self.replica_status();
        let ready = status.followers.iter().any(|follower| {
            to.is_none_or(|to| to == follower.id)
                && follower.active
                && follower.matched_index + CAUGHT_UP >= status.last_index
        });
        if !ready && to != Some(self.id()) {
            let who =
                if member.is_empty() { "no other member".to_owned() } else { format!("`{member}` isn't there or") };
            return Err(refusal::refusal(
                refusal::Code::FailedPrecondition,
                "NOT_CAUGHT_UP",
                format!("{who} has not caught up with the leader"),
                "see `millgrid cluster status`, then call again",
            ));
        }
        let asked = self.replica().try_send(replica::Message::Step(Input::TransferLeader { to }));
        asked.map_err(|_| crate::calls::overloaded())
    }
}
