//! Lists to their end.

use proto::v1;

use crate::{Cluster, Error, Jobs, Queues, Workers};

impl Jobs<'_> {
    /// Up to `limit` jobs (none: all), newest first, page by page.
    pub async fn list_up_to(
        self,
        mut request: v1::ListJobsRequest,
        limit: Option<usize>,
    ) -> Result<Vec<v1::Job>, Error> {
        let mut jobs = Vec::new();
        loop {
            let left = limit.map_or(1000, |limit| limit - jobs.len()).min(1000);
            if left == 0 {
                return Ok(jobs);
            }
            request.page_size = left as u32;
            let page = self.list(request.clone()).await?;
            jobs.extend(page.jobs);
            if page.next_page_token.is_empty() {
                if let Some(limit) = limit {
                    jobs.truncate(limit);
                }
                return Ok(jobs);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Hands each page of a job's tasks to `page`, in the order of the array, until it says false.
    pub async fn each_page_of_tasks(
        self,
        mut request: v1::ListTasksRequest,
        mut page: impl FnMut(Vec<v1::Task>) -> bool,
    ) -> Result<(), Error> {
        loop {
            let answer = self.list_tasks(request.clone()).await?;
            if !page(answer.tasks) || answer.next_page_token.is_empty() {
                return Ok(());
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// All objects that a job published, and where the manifests are that are too long to be listed.
    pub async fn all_outputs(
        self,
        mut request: v1::ListOutputsRequest,
    ) -> Result<(Vec<v1::OutputObject>, Vec<v1::StoredManifest>), Error> {
        let (mut objects, mut stored) = (Vec::new(), Vec::new());
        loop {
            let page = self.list_outputs(request.clone()).await?;
            objects.extend(page.objects);
            stored.extend(page.stored);
            if page.next_page_token.is_empty() {
                return Ok((objects, stored));
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl Queues<'_> {
    /// All queues, by name.
    pub async fn all(self) -> Result<Vec<v1::Queue>, Error> {
        let mut request = v1::ListQueuesRequest::default();
        let mut queues = Vec::new();
        loop {
            let page = self.list(request.clone()).await?;
            queues.extend(page.queues);
            if page.next_page_token.is_empty() {
                return Ok(queues);
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl Workers<'_> {
    /// All workers, by name.
    pub async fn all(self) -> Result<Vec<v1::Worker>, Error> {
        let mut request = v1::ListWorkersRequest::default();
        let mut workers = Vec::new();
        loop {
            let page = self.list(request.clone()).await?;
            workers.extend(page.workers);
            if page.next_page_token.is_empty() {
                return Ok(workers);
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl Cluster<'_> {
    /// The name of the leader, none when there is none at present.
    pub async fn leader(self) -> Result<Option<String>, Error> {
        let status = self.status(v1::GetClusterStatusRequest {}).await?;
        Ok((!status.leader.is_empty()).then_some(status.leader))
    }
}
