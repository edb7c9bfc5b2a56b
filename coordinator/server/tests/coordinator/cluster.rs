//! Three members: fronts, changes of leader, restarts, snapshots.

use std::{collections::BTreeSet, time::Instant};

use proto::v1::{
    ClusterStatus, GetClusterStatusRequest, GetJobRequest, JobState, ListJobsRequest, Member, TransferLeaderRequest,
    WatchJobsRequest, WorkerMessage, cluster_service_client::ClusterServiceClient,
    job_service_client::JobServiceClient, worker_session_service_client::WorkerSessionServiceClient,
};
use tonic::Code;

use crate::support::{Authority, Node, eventually, leader, reason, record, submit, three};

async fn status(authority: &Authority, node: &Node) -> ClusterStatus {
    let mut client = ClusterServiceClient::new(authority.client(node).await);
    client.get_cluster_status(GetClusterStatusRequest {}).await.unwrap().into_inner()
}

/// Submits until a leader takes it; the request id makes that safe.
pub async fn submitted(authority: &Authority, node: &Node, request_id: &str) -> u64 {
    let mut client = JobServiceClient::new(authority.client(node).await);
    let request = submit(request_id);
    let client = &mut client;
    for _ in 0..20 {
        match client.submit_job(request.clone()).await {
            Ok(job) => return job.into_inner().id,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    }
    panic!("nobody takes a submit");
}

/// All members are there and have the same state.
async fn agreed(authority: &Authority, nodes: &[Node]) -> ClusterStatus {
    eventually("all members have one digest", || async {
        let status = status(authority, &nodes[0]).await;
        let digests: BTreeSet<&str> = status.members.iter().map(|member| member.digest.as_str()).collect();
        let whole = status.members.len() == nodes.len() && status.members.iter().all(|member| member.reachable);
        (whole && digests.len() == 1 && !digests.contains("") && !status.leader.is_empty()).then(|| status.clone())
    })
    .await
}

#[tokio::test]
async fn a_member_that_knows_no_others_says_how_to_tell_it_and_is_told_once() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    let mut jobs = JobServiceClient::new(authority.client(&node).await);
    let refused = jobs.submit_job(submit("")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "NOT_BOOTSTRAPPED"));

    let mut cluster = ClusterServiceClient::new(authority.client(&node).await);
    let good = record(&authority, std::slice::from_ref(&node)).await;
    let mut stranger = good.clone();
    stranger.members[0].id += 1;
    let mut nowhere = good.clone();
    nowhere.members[0].peer_address = "here".to_owned();
    let mut twice = good.clone();
    twice.members.push(good.members[0].clone());
    for bad in [stranger, nowhere, twice] {
        assert_eq!(cluster.bootstrap(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    cluster.bootstrap(good.clone()).await.unwrap();
    cluster.bootstrap(good.clone()).await.unwrap();
    let other =
        Member { id: 7, name: "c7".to_owned(), peer_address: "127.0.0.1:1".to_owned(), ..good.members[0].clone() };
    let mut another = good;
    another.members.push(other);
    assert_eq!(cluster.bootstrap(another).await.unwrap_err().code(), Code::FailedPrecondition);

    assert_eq!(submitted(&authority, &node, "alone").await, 1);
    let again = Node::start(node.stop());
    assert_eq!(submitted(&authority, &again, "alone").await, 1, "the request id is remembered over a restart");
    assert_eq!(submitted(&authority, &again, "another").await, 2);
    again.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_front_takes_any_call_and_all_members_agree() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    leader(&nodes).await;
    for (position, node) in nodes.iter().enumerate() {
        assert_eq!(submitted(&authority, node, &format!("front-{position}")).await, position as u64 + 1);
    }
    for node in &nodes {
        let mut client = JobServiceClient::new(authority.client(node).await);
        for job_id in 1..=3 {
            let job = client.get_job(GetJobRequest { job_id, last: false }).await.unwrap().into_inner();
            assert_eq!((job.owner.as_str(), job.state()), ("alice", JobState::Queued));
        }
        let missing = client.get_job(GetJobRequest { job_id: 99, last: false }).await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
        assert!(!reason(&missing).is_empty());
    }
    let status = agreed(&authority, &nodes).await;
    assert_eq!(status.members.iter().filter(|member| member.role == "leader").count(), 1);
    assert_eq!(status.cluster_id, "test");

    // 200 callers at once, with one request id: one job.
    let mut tasks = Vec::new();
    for caller in 0..200 {
        let channel = authority.client(&nodes[caller % 3]).await;
        tasks.push(tokio::spawn(async move {
            JobServiceClient::new(channel).submit_job(submit("same")).await.unwrap().into_inner().id
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 4);
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_a_small_grid_are_told_where_the_leader_is() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    let leads = leader(&nodes).await;
    let worker = authority.issue("millgrid", "worker", "w1");
    for (position, node) in nodes.iter().enumerate() {
        let channel = authority.connect(node.addresses.grpc.port(), Some(&worker)).await.unwrap();
        let mut sessions = WorkerSessionServiceClient::new(channel);
        let answered = sessions.session(tokio_stream::pending::<WorkerMessage>()).await.unwrap();
        let named = answered.metadata().get("millgrid-leader").map(|url| url.to_str().unwrap());
        let address = format!("https://{}", nodes[leads].addresses.grpc);
        assert_eq!(named, (position != leads).then_some(&*address));
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_through_a_follower_shows_each_change() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    let leads = leader(&nodes).await;
    let front = &nodes[(leads + 1) % 3];
    let job = submitted(&authority, front, "watched").await;
    let mut client = JobServiceClient::new(authority.client(front).await);
    let request = WatchJobsRequest { job_ids: vec![job], ..Default::default() };
    let mut watch = client.watch_jobs(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert!(first.reset && first.jobs[0].state() == JobState::Queued);
    let cancel = proto::v1::CancelJobRequest { job_id: job, ..Default::default() };
    JobServiceClient::new(authority.client(&nodes[leads]).await).cancel_job(cancel).await.unwrap();
    loop {
        let change = watch.message().await.unwrap().expect("the watch goes on until the end is seen");
        if change.jobs.iter().any(|job| job.state() == JobState::Cancelled) {
            break;
        }
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_when_asked_to_and_nobody_is_named_in_vain() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    let old = leader(&nodes).await;
    let wanted = (old + 1) % 3;
    // Asked at a member that neither leads nor shall lead.
    let mut client = ClusterServiceClient::new(authority.client(&nodes[(old + 2) % 3]).await);
    let unknown = client.transfer_leader(TransferLeaderRequest { member: "c9".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let moved = eventually("the new leader is known", || {
        let mut client = client.clone();
        let request = TransferLeaderRequest { member: nodes[wanted].config.name.clone() };
        async move { client.transfer_leader(request).await.ok() }
    })
    .await
    .into_inner();
    assert_eq!(moved.new_leader, nodes[wanted].config.name);
    eventually("it leads", || async { nodes[wanted].leads().then_some(()) }).await;
    submitted(&authority, &nodes[old], "after").await;
    agreed(&authority, &nodes).await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_calls_are_refused_in_time_and_the_status_says_who_is_missing() {
    let authority = Authority::new();
    let mut nodes = three(&authority).await;
    leader(&nodes).await;
    submitted(&authority, &nodes[0], "before").await;
    let disks = [nodes.remove(0).stop(), nodes.remove(0).stop()];
    let alone = eventually("the last one knows that it is alone", || async {
        let status = status(&authority, &nodes[0]).await;
        status.leader.is_empty().then_some(status)
    })
    .await;
    let reachable: Vec<_> = alone.members.iter().filter(|member| member.reachable).collect();
    assert!(reachable.len() == 1 && reachable[0].name == nodes[0].config.name);
    assert!(alone.members.iter().all(|member| member.reachable || member.digest.is_empty()));

    let mut client = JobServiceClient::new(authority.client(&nodes[0]).await);
    let begun = Instant::now();
    let refused = client.submit_job(submit("alone")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "NO_LEADER"));
    assert!((500..10_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());

    nodes.extend(disks.map(Node::start));
    submitted(&authority, &nodes[0], "alone").await;
    agreed(&authority, &nodes).await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_survives_the_leader_and_one_that_was_away_gets_a_snapshot() {
    let authority = Authority::new();
    let mut nodes = three(&authority).await;
    let first = leader(&nodes).await;
    let before = submitted(&authority, &nodes[first], "before").await;
    let away = nodes.remove(first).stop();

    // More than the log keeps: snapshots were made, and the log doesn't reach back.
    for number in 0..400 {
        submitted(&authority, &nodes[number % 2], &format!("meanwhile-{number}")).await;
    }
    eventually("both have snapshots", || async { nodes.iter().all(|node| node.snapshots() > 0).then_some(()) }).await;
    nodes.push(Node::start(away));
    agreed(&authority, &nodes).await;
    let returned = nodes.last().unwrap();
    assert!(returned.snapshots() > 0, "it caught up without a snapshot");
    assert_eq!(submitted(&authority, returned, "before").await, before);

    // All three from their disks.
    let disks: Vec<_> = nodes.into_iter().map(Node::stop).collect();
    let nodes: Vec<Node> = disks.into_iter().map(Node::start).collect();
    agreed(&authority, &nodes).await;
    assert_eq!(submitted(&authority, &nodes[0], "before").await, before);
    let mut client = JobServiceClient::new(authority.client(&nodes[1]).await);
    let listed = client.list_jobs(ListJobsRequest { page_size: 1_000, ..Default::default() }).await.unwrap();
    assert_eq!(listed.into_inner().jobs.len(), 401);
    nodes.into_iter().for_each(|node| drop(node.stop()));
}
