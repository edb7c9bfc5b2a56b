//! Queues.

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
}
