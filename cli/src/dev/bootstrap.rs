//! From three processes to a grid: who the members are, who leads, which workers are there.

use std::{fs, time::Duration};

use proto::v1::{
    BootstrapRequest, ClusterStatus, GetClusterStatusRequest, GetMemberRequest, ListWorkersRequest, Member,
    WorkerState, cluster_service_client::ClusterServiceClient, worker_service_client::WorkerServiceClient,
};
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{failure::Failure, launch::random_hex, record::COORDINATORS, record::Record, state::State};

/// A coordinator on this machine that takes longer than this is asked again.
const CALL: Duration = Duration::from_secs(2);

/// Connections to all coordinators, made as they begin to answer.
pub struct Members {
    endpoints: Vec<(String, Endpoint)>,
    channels: Vec<Option<Channel>>,
}

impl Members {
    pub fn new(state: &State, record: &Record) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = state.ca().join(name);
            fs::read(&path).map_err(Failure::file("read", path))
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")?))
            .identity(Identity::from_pem(read("client.pem")?, read("client.key")?));
        let endpoint = |url: String| {
            let endpoint = Endpoint::from_shared(url)?.connect_timeout(CALL).timeout(CALL).tcp_nodelay(true);
            endpoint.tls_config(tls.clone())
        };
        let endpoints: Result<Vec<_>, tonic::transport::Error> = COORDINATORS
            .iter()
            .zip(record.endpoints())
            .map(|(name, url)| Ok((name.to_string(), endpoint(url)?)))
            .collect();
        let endpoints =
            endpoints.map_err(|error| Failure::Other(format!("the certificates can't be used: {error}")))?;
        let channels = vec![None; endpoints.len()];
        Ok(Self { endpoints, channels })
    }

    /// The members as they name themselves; `None` while one of them doesn't answer.
    pub async fn members(&mut self) -> Option<Vec<Member>> {
        let calls = self.connected().await;
        if calls.len() < self.endpoints.len() {
            return None;
        }
        let answers = calls.into_iter().map(|(_, channel)| async move {
            let answer = ClusterServiceClient::new(channel).get_member(GetMemberRequest {}).await;
            answer.ok().map(tonic::Response::into_inner)
        });
        futures::future::join_all(answers).await.into_iter().collect()
    }

    /// Tells each member who the members are. One that knows already keeps what it knows.
    pub async fn bootstrap(&mut self, members: Vec<Member>) -> Result<(), Failure> {
        if members.iter().all(|member| !member.cluster_id.is_empty()) {
            return Ok(());
        }
        // A bootstrap that was cut short told some of them.
        let known = members.iter().map(|member| &member.cluster_id).find(|id| !id.is_empty());
        let cluster_id = match known {
            Some(id) => id.clone(),
            None => random_hex(16)?,
        };
        let plain = |member: Member| Member { cluster_id: String::new(), version: String::new(), ..member };
        let request = BootstrapRequest { cluster_id, members: members.into_iter().map(plain).collect() };
        let calls = self.connected().await.into_iter().map(|(name, channel)| {
            let request = request.clone();
            async move {
                let answer = ClusterServiceClient::new(channel).bootstrap(request).await;
                answer.map_err(|status| Failure::Bootstrap { member: name, message: status.message().to_owned() })
            }
        });
        futures::future::try_join_all(calls).await.map(drop)
    }

    /// What a coordinator says of the grid, if one of them knows a leader.
    pub async fn led(&mut self) -> Option<ClusterStatus> {
        let calls = self.connected().await.into_iter().map(|(_, channel)| {
            Box::pin(async move {
                let call = ClusterServiceClient::new(channel).get_cluster_status(GetClusterStatusRequest {}).await;
                let status = call.ok()?.into_inner();
                if status.leader.is_empty() { None } else { Some(status) }
            })
        });
        first(calls.collect()).await
    }

    /// The names of workers that have joined and take tasks.
    pub async fn workers(&mut self) -> Option<Vec<String>> {
        let calls = self.connected().await.into_iter().map(|(_, channel)| {
            Box::pin(async move {
                let request = ListWorkersRequest { page_size: 1000, ..Default::default() };
                let answer = WorkerServiceClient::new(channel).list_workers(request).await.ok()?.into_inner();
                let ready = answer.workers.into_iter().filter(|worker| worker.state == WorkerState::Ready as i32);
                Some(ready.map(|worker| worker.name).collect())
            })
        });
        first(calls.collect()).await
    }

    /// The coordinators that can be reached now.
    async fn connected(&mut self) -> Vec<(String, Channel)> {
        let attempts = self.endpoints.iter().zip(&self.channels).map(|((_, endpoint), channel)| async move {
            match channel {
                Some(channel) => Some(channel.clone()),
                None => timeout(CALL, endpoint.connect()).await.ok()?.ok(),
            }
        });
        self.channels = futures::future::join_all(attempts).await;
        let names = self.endpoints.iter().map(|(name, _)| name.clone());
        names.zip(&self.channels).filter_map(|(name, channel)| Some((name, channel.clone()?))).collect()
    }
}

/// The first answer of several calls that isn't `None`.
async fn first<T, F: Future<Output = Option<T>> + Unpin>(mut calls: Vec<F>) -> Option<T> {
    while !calls.is_empty() {
        let (answer, _, rest) = futures::future::select_all(calls).await;
        if answer.is_some() {
            return answer;
        }
        calls = rest;
    }
    None
}
