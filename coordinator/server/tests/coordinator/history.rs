//! Segments of the history: on every disk, fetched where they are missing, and given to members alone.

use std::{fs, path::PathBuf};

use proto::internal::{FetchSegmentRequest, peer_service_client::PeerServiceClient};
use proto::v1::{
    CancelJobRequest, GetHistoryRequest, GetJobRequest, History, Job, JobState, SetHistoryRequest,
    job_service_client::JobServiceClient,
};
use tonic::{Code, Status};

use crate::{
    cluster::submitted,
    support::{Authority, Node, eventually, leader, reason, three},
};

fn segment(node: &Node, number: u32) -> PathBuf {
    node.config.data_dir.join(format!("history/segment-{number:010}"))
}

/// Cancels jobs, so that they have ended, and lets them leave; all but the owner's newest do.
async fn moved(authority: &Authority, node: &Node, count: u64) -> History {
    let mut client = JobServiceClient::new(authority.client(node).await);
    for number in 0..count {
        let job_id = submitted(authority, node, &format!("moving-{number}")).await;
        let request = CancelJobRequest { job_id, ..Default::default() };
        client.cancel_job(request).await.unwrap();
    }
    let request = SetHistoryRequest { keep_jobs: Some(0), ..Default::default() };
    client.set_history(request).await.unwrap();
    eventually("the jobs have left", || async {
        let mut client = JobServiceClient::new(authority.client(node).await);
        let history = client.get_history(GetHistoryRequest {}).await.unwrap().into_inner();
        (history.moved_jobs == count - 1).then_some(history)
    })
    .await
}

async fn all_held(node: &Node) {
    eventually("it has all segments", || async {
        let running = node.member.running().unwrap();
        let (segments, held) = (running.history().segments(), running.history().held());
        (segments > 0 && segments == held).then_some(())
    })
    .await
}

async fn get(authority: &Authority, node: &Node, id: u64) -> Result<Job, Status> {
    let mut client = JobServiceClient::new(authority.client(node).await);
    client.get_job(GetJobRequest { job_id: id, ..Default::default() }).await.map(|answer| answer.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_its_history_fetches_it_and_one_that_reads_first_does_too() {
    let authority = Authority::new();
    let mut nodes = three(&authority).await;
    let history = moved(&authority, &nodes[0], 200).await;
    for node in &nodes {
        all_held(node).await;
        eventually("it has a snapshot", || async { (node.snapshots() > 0).then_some(()) }).await;
    }
    let whole = fs::read(segment(&nodes[0], 1)).unwrap();
    assert!(nodes.iter().all(|node| fs::read(segment(node, 1)).unwrap() == whole), "all have the same");
    assert_eq!(history.settled_segments, history.segments);

    // Lost while it was down: what its snapshot has no log for any more comes from the others.
    let position = (leader(&nodes).await + 1) % 3;
    let config = nodes.remove(position).stop();
    fs::remove_dir_all(config.data_dir.join("history")).unwrap();
    let node = Node::start(config);
    all_held(&node).await;
    assert_eq!(fs::read(segment(&node, 1)).unwrap(), whole);
    nodes.push(node);

    // Lost while it runs: noticed by whoever reads.
    let leading = leader(&nodes).await;
    fs::remove_file(segment(&nodes[leading], 1)).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(segment(&nodes[(leading + 1) % 3], 1), &damaged).unwrap();
    let job = get(&authority, &nodes[leading], 1).await.unwrap();
    assert_eq!(job.state(), JobState::Cancelled);
    eventually("it is there again", || async {
        fs::read(segment(&nodes[leading], 1)).ok().filter(|file| *file == whole).map(|_| ())
    })
    .await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_given_to_the_other_members_of_the_cluster_alone() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    moved(&authority, &nodes[0], 5).await;
    all_held(&nodes[0]).await;
    let port = nodes[0].addresses.peer.port();
    let fetch = async |name: &str, cluster: &str, number: u32| {
        let issued = authority.issue("millgrid", "coordinator", name);
        let channel = authority.connect(port, Some(&issued)).await.unwrap();
        let request = FetchSegmentRequest { cluster_id: cluster.to_owned(), number };
        PeerServiceClient::new(channel).fetch_segment(request).await.map(|answer| answer.into_inner().data)
    };
    assert!(!fetch("c2", "test", 1).await.unwrap().is_empty());
    for (name, cluster, number, code, why) in [
        ("c4", "test", 1, Code::PermissionDenied, "NOT_A_MEMBER"),
        ("c1", "test", 1, Code::PermissionDenied, "NOT_A_MEMBER"),
        ("c2", "other", 1, Code::PermissionDenied, "WRONG_PEER"),
        ("c2", "test", 0, Code::NotFound, "NOT_FOUND"),
        ("c2", "test", u32::MAX, Code::NotFound, "NOT_FOUND"),
    ] {
        let refused = fetch(name, cluster, number).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why), "{name} {cluster} {number}");
    }
    // One that is damaged is none.
    fs::write(segment(&nodes[0], 1), b"nonsense").unwrap();
    assert_eq!(fetch("c2", "test", 1).await.unwrap_err().code(), Code::NotFound);
    nodes.into_iter().for_each(|node| drop(node.stop()));
}
