//! Queues, how the grid is shared among them, and licenses.

use proto::v1::{queue_service_server::QueueService, *};
use tonic::{Request, Response, Status};

use super::{Front, unary};

#[tonic::async_trait]
impl QueueService for Front {
    async fn get_queue(&self, request: Request<GetQueueRequest>) -> Result<Response<Queue>, Status> {
        unary!(self, request, GetQueue, Queue)
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        unary!(self, request, ListQueues, ListQueues)
    }

    async fn create_queue(&self, request: Request<CreateQueueRequest>) -> Result<Response<Queue>, Status> {
        unary!(self, request, CreateQueue, Queue)
    }

    async fn set_queue(&self, request: Request<SetQueueRequest>) -> Result<Response<Queue>, Status> {
        unary!(self, request, SetQueue, Queue)
    }

    async fn delete_queue(
        &self,
        request: Request<DeleteQueueRequest>,
    ) -> Result<Response<DeleteQueueResponse>, Status> {
        unary!(self, request, DeleteQueue, DeleteQueue)
    }

    async fn get_fair_share(&self, request: Request<GetFairShareRequest>) -> Result<Response<FairShare>, Status> {
        unary!(self, request, GetFairShare, FairShare)
    }

    async fn set_fair_share(&self, request: Request<SetFairShareRequest>) -> Result<Response<FairShare>, Status> {
        unary!(self, request, SetFairShare, FairShare)
    }

    async fn list_licenses(
        &self,
        request: Request<ListLicensesRequest>,
    ) -> Result<Response<ListLicensesResponse>, Status> {
        unary!(self, request, ListLicenses, ListLicenses)
    }

    async fn set_license(&self, request: Request<SetLicenseRequest>) -> Result<Response<License>, Status> {
        unary!(self, request, SetLicense, License)
    }
}
