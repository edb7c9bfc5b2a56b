//! Deny by default: the one table of gRPC methods and the roles that may call them, asked before any handler.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use proto::v1::Role;
use tonic::{Code, body::Body, codegen::http};
use tower::{Layer, Service};

use crate::{listener::Peer, status};

const CLIENTS: &[Role] = &[Role::Client];
const WORKERS: &[Role] = &[Role::Worker];
const CLIENTS_AND_WORKERS: &[Role] = &[Role::Client, Role::Worker];
const COORDINATORS: &[Role] = &[Role::Coordinator];
const ALL: &[Role] = &[Role::Client, Role::Worker, Role::Coordinator];

/// Which roles may call which method. What isn't in here is refused.
pub const METHODS: &[(&str, &[Role])] = &[
    ("/millgrid.v1.JobService/SubmitJob", CLIENTS),
    ("/millgrid.v1.JobService/SubmitJobs", CLIENTS),
    ("/millgrid.v1.JobService/StreamJobs", CLIENTS),
    ("/millgrid.v1.JobService/PlanJobs", CLIENTS),
    ("/millgrid.v1.JobService/UploadBlob", CLIENTS),
    ("/millgrid.v1.JobService/GetJob", CLIENTS),
    ("/millgrid.v1.JobService/ListJobs", CLIENTS),
    ("/millgrid.v1.JobService/ListTasks", CLIENTS),
    // A worker resolves `job:N/PATH` inputs by it.
    ("/millgrid.v1.JobService/ListOutputs", CLIENTS_AND_WORKERS),
    ("/millgrid.v1.JobService/CancelJob", CLIENTS),
    ("/millgrid.v1.JobService/RetryJob", CLIENTS),
    ("/millgrid.v1.JobService/HoldJob", CLIENTS),
    ("/millgrid.v1.JobService/ReleaseJob", CLIENTS),
    ("/millgrid.v1.JobService/SetJob", CLIENTS),
    ("/millgrid.v1.JobService/ExplainJob", CLIENTS),
    ("/millgrid.v1.JobService/WatchJobs", CLIENTS),
    ("/millgrid.v1.JobService/ReadLogs", CLIENTS),
    ("/millgrid.v1.JobService/GetHistory", CLIENTS),
    ("/millgrid.v1.JobService/SetHistory", CLIENTS),
    ("/millgrid.v1.QueueService/GetQueue", CLIENTS),
    ("/millgrid.v1.QueueService/ListQueues", CLIENTS),
    ("/millgrid.v1.QueueService/CreateQueue", CLIENTS),
    ("/millgrid.v1.QueueService/SetQueue", CLIENTS),
    ("/millgrid.v1.QueueService/DeleteQueue", CLIENTS),
    ("/millgrid.v1.QueueService/GetFairShare", CLIENTS),
    ("/millgrid.v1.QueueService/SetFairShare", CLIENTS),
    ("/millgrid.v1.QueueService/ListLicenses", CLIENTS),
    ("/millgrid.v1.QueueService/SetLicense", CLIENTS),
    ("/millgrid.v1.WorkerService/GetWorker", CLIENTS),
    ("/millgrid.v1.WorkerService/ListWorkers", CLIENTS),
    ("/millgrid.v1.WorkerService/DrainWorker", CLIENTS),
    ("/millgrid.v1.WorkerService/CordonWorker", CLIENTS),
    ("/millgrid.v1.WorkerService/UncordonWorker", CLIENTS),
    ("/millgrid.v1.WorkerSessionService/Session", WORKERS),
    ("/millgrid.v1.WorkerSessionService/FetchBlob", WORKERS),
    ("/millgrid.v1.ClusterService/GetClusterStatus", CLIENTS),
    ("/millgrid.v1.ClusterService/TransferLeader", CLIENTS),
    ("/millgrid.v1.ClusterService/GetMember", CLIENTS),
    ("/millgrid.v1.ClusterService/Bootstrap", CLIENTS),
    ("/millgrid.internal.v1.RelayService/Relay", COORDINATORS),
    ("/millgrid.internal.v1.RelayService/GetMemberStatus", COORDINATORS),
    ("/millgrid.internal.v1.RelayService/Report", COORDINATORS),
    ("/millgrid.internal.v1.PeerService/Push", COORDINATORS),
    ("/millgrid.internal.v1.PeerService/SendSnapshot", COORDINATORS),
    ("/millgrid.internal.v1.PeerService/FetchSegment", COORDINATORS),
    ("/grpc.health.v1.Health/Check", ALL),
    ("/grpc.health.v1.Health/Watch", ALL),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ALL),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ALL),
];

/// The roles that may call the method at this path; none for an unknown one.
pub fn roles(path: &str) -> &'static [Role] {
    METHODS.iter().find(|(method, _)| *method == path).map_or(&[], |(_, roles)| roles)
}

/// Asks the table before any handler, and puts the caller's identity into the request.
#[derive(Clone, Copy)]
pub struct Authorization;

impl<S> Layer<S> for Authorization {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner }
    }
}

/// A service behind the table.
#[derive(Clone)]
pub struct Authorized<S> {
    inner: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for Authorized<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let identity = match authorize(&request) {
            Ok(identity) => identity,
            Err(refused) => return Box::pin(async move { Ok(refused.into_http()) }),
        };
        request.extensions_mut().insert(identity);
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map(name_the_size_limit) })
    }
}

fn authorize(request: &http::Request<Body>) -> Result<std::sync::Arc<crate::identity::Identity>, tonic::Status> {
    let unauthenticated = |why: &str| {
        status::refused(
            Code::Unauthenticated,
            "UNAUTHENTICATED",
            why,
            "use a certificate made by `millgrid cluster issue-cert`",
            "",
        )
    };
    let peer = request.extensions().get::<Peer>().ok_or_else(|| unauthenticated("unknown connection"))?;
    let identity = peer.identity.clone().map_err(|why| unauthenticated(&why.to_string()))?;
    let path = request.uri().path();
    if roles(path).contains(&identity.role) {
        return Ok(identity);
    }
    tracing::debug!(name = identity.name, address = %peer.address, path, "call denied");
    let role = identity.role.as_str_name().trim_start_matches("ROLE_").to_lowercase();
    Err(status::refused(
        Code::PermissionDenied,
        "PERMISSION_DENIED",
        &format!("`{}` of role {role} may not call {path}", identity.name),
        "use a certificate of another role, made by `millgrid cluster issue-cert`",
        "",
    ))
}

/// A request over the size limit is refused by the decoder with a code that says nothing of the way out.
fn name_the_size_limit(response: http::Response<Body>) -> http::Response<Body> {
    let too_large = response.headers().get("grpc-status").is_some_and(|code| code == "11");
    if !too_large {
        return response;
    }
    status::too_large().into_http()
}
