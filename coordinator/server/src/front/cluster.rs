//! The coordinators themselves.

use std::time::Duration;

use futures::future::join_all;
use proto::internal::{
    GetMemberStatusRequest, MarkRequest, call_request, call_response, relay_service_client::RelayServiceClient,
};
use proto::v1::{cluster_service_server::ClusterService, *};
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status};

use super::{Front, route};
use crate::{identity::Identity, leadership::Leadership, member::Running, status};

/// A member that doesn't answer by then can't be reached.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(1);
/// A step of a planned change of leader takes no longer than this, or has failed.
const TRANSFER_WAIT: Duration = Duration::from_secs(3);

#[tonic::async_trait]
impl ClusterService for Front {
    async fn get_cluster_status(&self, _: Request<GetClusterStatusRequest>) -> Result<Response<ClusterStatus>, Status> {
        let running = self.running()?;
        let mark = mark(&running).await;
        let own = running.own_status(mark.unwrap_or(0)).await?;
        // Without a leader: the newest digest that this member knows, of all.
        let index = mark.unwrap_or(own.digest_index);
        let members = running.members().iter().map(|member| member_status(&running, member, index, &own));
        let mut members = join_all(members).await;
        let leadership = *running.leadership().borrow();
        for member in &mut members {
            if member.digest_index != index || index == 0 {
                (member.digest_index, member.digest) = (index, String::new());
            }
        }
        Ok(Response::new(ClusterStatus {
            cluster_id: running.cluster_id().to_owned(),
            leader: leadership.leader.map_or_else(String::new, |leader| running.name_of(leader).to_owned()),
            term: leadership.term,
            members,
            answered_by: self.member.config().address.clone(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let identity = super::identity(&extensions)?;
        let running = self.running()?;
        let wanted = match request.member.as_str() {
            "" => None,
            name => Some(running.member_named(name).map_err(|refused| status::from_refusal(&refused))?),
        };
        let mut leadership = running.leadership();
        let old = led(&mut leadership, Instant::now() + TRANSFER_WAIT).await?;
        if wanted == Some(old) {
            let name = running.name_of(old).to_owned();
            return Ok(Response::new(TransferLeaderResponse { old_leader: name.clone(), new_leader: name }));
        }
        if leadership.borrow().leading {
            running.begin_transfer(&request.member).map_err(|refused| status::from_refusal(&refused))?;
        } else {
            let ask = call_request::Request::TransferLeader(request);
            let mut call = route(&running, &identity, ask, false, Instant::now() + TRANSFER_WAIT).await?;
            // The leader answers only to refuse: when it resigns, the relay breaks.
            tokio::select! {
                answer = call.next() => if let Some(Err(refused)) = answer
                    && refused.reason != coordinator_core::refusal::LEADER_CHANGED {
                    return Err(status::from_refusal(&refused));
                },
                _ = leadership.wait_for(|now| now.leader != Some(old)) => {}
                () = tokio::time::sleep(TRANSFER_WAIT) => {}
            }
        }
        let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != old));
        match timeout(TRANSFER_WAIT, moved).await {
            Ok(Ok(now)) => {
                let new = now.leader.unwrap_or_default();
                Ok(Response::new(TransferLeaderResponse {
                    old_leader: running.name_of(old).to_owned(),
                    new_leader: running.name_of(new).to_owned(),
                }))
            }
            _ => Err(status::refused(
                Code::FailedPrecondition,
                "TRANSFER_FAILED",
                &format!("`{}` leads still: no other member caught up in time", running.name_of(old)),
                "see `millgrid cluster status`, then call again",
                "",
            )),
        }
    }

    async fn get_member(&self, _: Request<GetMemberRequest>) -> Result<Response<Member>, Status> {
        Ok(Response::new(self.member.describe()))
    }

    async fn bootstrap(&self, request: Request<BootstrapRequest>) -> Result<Response<Member>, Status> {
        self.member.bootstrap(request.get_ref()).await.map(Response::new)
    }
}

/// Waits until somebody leads.
async fn led(leadership: &mut tokio::sync::watch::Receiver<Leadership>, deadline: Instant) -> Result<u64, Status> {
    let known = leadership.wait_for(|now| now.leader.is_some());
    match tokio::time::timeout_at(deadline, known).await {
        Ok(Ok(now)) => now.leader.ok_or_else(status::no_leader),
        _ => Err(status::no_leader()),
    }
}

/// An index of now, at which every member that is up to date notes its digest. `None` without a leader.
async fn mark(running: &Running) -> Option<u64> {
    let identity = Identity { role: Role::Coordinator, name: running.name_of(running.id()).to_owned() };
    let deadline = Instant::now() + MEMBER_TIMEOUT;
    let asked = async {
        let request = call_request::Request::Mark(MarkRequest {});
        let mut call = route(running, &identity, request, false, deadline).await.ok()?;
        match call.next().await? {
            Ok(call_response::Response::Mark(mark)) => Some(mark.index),
            _ => None,
        }
    };
    tokio::time::timeout_at(deadline, asked).await.ok().flatten()
}

async fn member_status(running: &Running, member: &Member, index: u64, own: &MemberStatus) -> MemberStatus {
    let known = MemberStatus {
        id: member.id,
        name: member.name.clone(),
        address: member.address.clone(),
        role: "follower".to_owned(),
        ..MemberStatus::default()
    };
    if member.id == running.id() {
        return MemberStatus { name: known.name, address: known.address, ..own.clone() };
    }
    let Some(channel) = running.channels().relay(member.id) else { return known };
    let mut client = RelayServiceClient::new(channel);
    let ask = client.get_member_status(GetMemberStatusRequest { digest_index: index });
    match timeout(MEMBER_TIMEOUT + Duration::from_millis(200), ask).await {
        Ok(Ok(answer)) => {
            MemberStatus { reachable: true, name: known.name, address: known.address, ..answer.into_inner() }
        }
        _ => known,
    }
}
