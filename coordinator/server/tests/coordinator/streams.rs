//! Streams of submits through fronts and changes of leader.

use std::collections::{BTreeMap, BTreeSet};

use proto::v1::{
    JobSpec, ListJobsRequest, StreamJobsRequest, StreamJobsResponse, job_service_client::JobServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

use crate::support::{Authority, Node, eventually, leader, reason, three};

/// A client as the protocol has it: what has no answer is sent again.
#[derive(Default)]
struct Client {
    /// By number.
    jobs: BTreeMap<u64, u64>,
}

impl Client {
    fn answered(&self) -> u64 {
        self.jobs.len() as u64
    }

    fn message(&self, first_sequence: u64, count: u64) -> StreamJobsRequest {
        let spec =
            |number| JobSpec { name: format!("job-{number}"), command: vec!["true".to_owned()], ..JobSpec::default() };
        let specs = (first_sequence..first_sequence + count).map(spec).collect();
        let answered_sequence = self.answered();
        StreamJobsRequest { stream_id: "stream".to_owned(), first_sequence, specs, answered_sequence, last: false }
    }

    fn take(&mut self, answer: StreamJobsResponse) {
        assert!(answer.refused.is_empty(), "{answer:?}");
        for run in answer.accepted {
            for more in 0..u64::from(run.count) {
                let (number, job) = (run.first_sequence + more, run.first_job_id + more);
                assert_eq!(number, self.answered() + 1, "answers come in order");
                self.jobs.insert(number, job);
            }
        }
    }
}

type Open = (mpsc::UnboundedSender<StreamJobsRequest>, Streaming<StreamJobsResponse>);

async fn open(authority: &Authority, node: &Node) -> Open {
    eventually("a stream is open", || async {
        let (messages, outgoing) = mpsc::unbounded_channel();
        let mut client = JobServiceClient::new(authority.client(node).await);
        let answers = client.stream_jobs(UnboundedReceiverStream::new(outgoing)).await.ok()?;
        Some((messages, answers.into_inner()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_through_a_follower_goes_on_behind_a_dead_leader_and_nothing_is_there_twice() {
    const JOBS: u64 = 1_000;
    const BATCH: u64 = 50;
    let authority = Authority::new();
    let mut nodes = three(&authority).await;
    let leads = leader(&nodes).await;
    let dying = nodes.remove(leads);
    let mut client = Client::default();

    let (messages, mut answers) = open(&authority, &nodes[0]).await;
    for first in (1..=JOBS).step_by(BATCH as usize) {
        messages.send(client.message(first, BATCH)).unwrap();
    }
    client.take(answers.message().await.unwrap().unwrap());
    drop(dying.stop());
    // Whatever was answered before the leader was missed counts.
    while let Ok(Some(answer)) = answers.message().await {
        client.take(answer);
    }
    while client.answered() < JOBS {
        let (messages, mut answers) = open(&authority, &nodes[1]).await;
        messages.send(client.message(client.answered() + 1, BATCH.min(JOBS - client.answered()))).unwrap();
        while let Ok(Some(answer)) = answers.message().await {
            client.take(answer);
            if client.answered() < JOBS {
                let next = client.message(client.answered() + 1, BATCH.min(JOBS - client.answered()));
                messages.send(next).unwrap();
            } else {
                break;
            }
        }
    }

    let mut listed = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListJobsRequest { page_size: 1_000, page_token, ..ListJobsRequest::default() };
        let page = JobServiceClient::new(authority.client(&nodes[0]).await).list_jobs(request).await.unwrap();
        let page = page.into_inner();
        listed.extend(page.jobs.into_iter().map(|job| (job.id, job.name)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: BTreeMap<u64, String> =
        client.jobs.iter().map(|(number, job)| (*job, format!("job-{number}"))).collect();
    assert_eq!(listed, expected);
    assert_eq!(client.jobs.values().collect::<BTreeSet<_>>().len() as u64, JOBS);
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_closed_with_its_last_word_and_not_begun_in_its_middle() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    leader(&nodes).await;
    let mut client = Client::default();
    let (messages, mut answers) = open(&authority, &nodes[0]).await;
    messages.send(client.message(1, 3)).unwrap();
    client.take(answers.message().await.unwrap().unwrap());
    assert_eq!(client.answered(), 3);
    messages.send(StreamJobsRequest { last: true, ..client.message(4, 0) }).unwrap();
    assert_eq!(answers.message().await.unwrap(), None);

    let (messages, mut answers) = open(&authority, &nodes[1]).await;
    messages.send(client.message(4, 1)).unwrap();
    let refused = answers.message().await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "STREAM_FORGOTTEN"));
    nodes.into_iter().for_each(|node| drop(node.stop()));
}
