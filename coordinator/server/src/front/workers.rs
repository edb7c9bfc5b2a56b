//! Workers, as submitters and operators see them.

use proto::v1::{worker_service_server::WorkerService, *};
use tonic::{Request, Response, Status};

use super::{Front, unary};

#[tonic::async_trait]
impl WorkerService for Front {
    async fn get_worker(&self, request: Request<GetWorkerRequest>) -> Result<Response<Worker>, Status> {
        unary!(self, request, GetWorker, Worker)
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        unary!(self, request, ListWorkers, ListWorkers)
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Result<Response<Worker>, Status> {
        unary!(self, request, DrainWorker, Worker)
    }

    async fn cordon_worker(&self, request: Request<CordonWorkerRequest>) -> Result<Response<Worker>, Status> {
        unary!(self, request, CordonWorker, Worker)
    }

    async fn uncordon_worker(&self, request: Request<UncordonWorkerRequest>) -> Result<Response<Worker>, Status> {
        unary!(self, request, UncordonWorker, Worker)
    }
}
