"""The methods of the API, with the types that they take and give."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from ._generated import cluster_pb2 as cluster
from ._generated import jobs_pb2 as jobs
from ._generated import queues_pb2 as queues
from ._generated import status_pb2 as status
from ._generated import workers_pb2 as workers

__all__ = ["Duration", "Message", "cluster", "jobs", "queues", "request_id", "status", "workers"]

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


@dataclass(frozen=True)
class Method(Generic[Req, Res]):
    """One method: a unary call, or one whose answer is a stream."""

    path: str
    request: type[Req]
    response: type[Res]


def _job(name: str, request: type[Req], response: type[Res]) -> Method[Req, Res]:
    return Method(f"/millgrid.v1.JobService/{name}", request, response)


SUBMIT_JOB = _job("SubmitJob", jobs.SubmitJobRequest, jobs.Job)
SUBMIT_JOBS = _job("SubmitJobs", jobs.SubmitJobsRequest, jobs.SubmitJobsResponse)
PLAN_JOBS = _job("PlanJobs", jobs.PlanJobsRequest, jobs.PlanJobsResponse)
UPLOAD_BLOB = _job("UploadBlob", jobs.UploadBlobRequest, jobs.UploadBlobResponse)
GET_JOB = _job("GetJob", jobs.GetJobRequest, jobs.Job)
LIST_JOBS = _job("ListJobs", jobs.ListJobsRequest, jobs.ListJobsResponse)
LIST_TASKS = _job("ListTasks", jobs.ListTasksRequest, jobs.ListTasksResponse)
LIST_OUTPUTS = _job("ListOutputs", jobs.ListOutputsRequest, jobs.ListOutputsResponse)
CANCEL_JOB = _job("CancelJob", jobs.CancelJobRequest, jobs.CancelJobResponse)
RETRY_JOB = _job("RetryJob", jobs.RetryJobRequest, jobs.Job)
HOLD_JOB = _job("HoldJob", jobs.HoldJobRequest, jobs.Job)
RELEASE_JOB = _job("ReleaseJob", jobs.ReleaseJobRequest, jobs.Job)
SET_JOB = _job("SetJob", jobs.SetJobRequest, jobs.Job)
EXPLAIN_JOB = _job("ExplainJob", jobs.ExplainJobRequest, jobs.Explanation)
WATCH_JOBS = _job("WatchJobs", jobs.WatchJobsRequest, jobs.WatchJobsResponse)
READ_LOGS = _job("ReadLogs", jobs.ReadLogsRequest, jobs.ReadLogsResponse)

LIST_QUEUES = Method("/millgrid.v1.QueueService/ListQueues", queues.ListQueuesRequest, queues.ListQueuesResponse)
GET_QUEUE = Method("/millgrid.v1.QueueService/GetQueue", queues.GetQueueRequest, queues.Queue)
LIST_WORKERS = Method("/millgrid.v1.WorkerService/ListWorkers", workers.ListWorkersRequest, workers.ListWorkersResponse)
GET_WORKER = Method("/millgrid.v1.WorkerService/GetWorker", workers.GetWorkerRequest, workers.Worker)
CLUSTER_STATUS = Method(
    "/millgrid.v1.ClusterService/GetClusterStatus", cluster.GetClusterStatusRequest, cluster.ClusterStatus
)


def request_id() -> str:
    """A fresh one: 128 random bits in hexadecimal."""
    return secrets.token_hex(16)
