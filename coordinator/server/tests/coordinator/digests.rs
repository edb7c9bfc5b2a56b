//! A replica whose disk says something else than the others': it is found, and stops.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use coordinator::config::Config;
use prost::Message;
use proto::internal::{StatePiece, state_piece::Piece};
use replication::{FileVolume, Snapshots};

use crate::{
    cluster::submitted,
    support::{Authority, Node, eventually, leader, three},
};

/// Changes one record in the newest snapshot of a member that is stopped; its checksums are right again, so that it is
/// as if the member itself had written it.
fn change_a_record(data_dir: &Path) {
    let mut snapshots = Snapshots::open(FileVolume::open(&data_dir.join("snapshots")).unwrap()).unwrap();
    let metadata = snapshots.list().last().unwrap().clone();
    let content = snapshots.load(&metadata).unwrap();
    let (mut rest, mut changed, mut done) = (&content[..], Vec::new(), false);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (compressed, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        let mut piece = StatePiece::decode(&*lz4_flex::decompress_size_prepended(compressed).unwrap()).unwrap();
        if let Some(Piece::Jobs(jobs)) = &mut piece.piece
            && let Some(job) = jobs.jobs.first_mut()
        {
            job.created_ms += 1;
            done = true;
        }
        let compressed = lz4_flex::compress_prepend_size(&piece.encode_to_vec());
        changed.push([&(compressed.len() as u32).to_le_bytes()[..], &compressed].concat());
        rest = behind;
    }
    assert!(done, "the snapshot has a job");
    let members = metadata.configuration.clone().unwrap();
    snapshots.store(metadata.index, metadata.term, &members, changed).unwrap();
}

/// The real process, on the disk and ports of a member that is stopped.
fn process(config: &Config, folder: &Path) -> Child {
    let file = folder.join(format!("{}.toml", config.name));
    let text = format!(
        "name = {:?}\ndata_dir = {:?}\nlisten = \"{}\"\npeer_listen = \"{}\"\nhttp_listen = \"{}\"\naddress = {:?}\n\
         peer_address = {:?}\nca = {:?}\ncert = {:?}\nkey = {:?}\nelection = \"fast\"\n",
        config.name,
        config.data_dir,
        config.listen,
        config.peer_listen,
        config.http_listen,
        config.address,
        config.peer_address,
        config.ca,
        config.cert,
        config.key,
    );
    fs::write(&file, text).unwrap();
    let log = fs::File::create(folder.join(format!("{}.log", config.name))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millgrid-coordinator"));
    command.arg("--config").arg(file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

async fn exit_code(child: &mut Child) -> i32 {
    eventually("the process ends", || std::future::ready(child.try_wait().unwrap())).await.code().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_record_differs_stops_with_72_and_the_others_go_on() {
    let authority = Authority::new();
    let mut nodes = three(&authority).await;
    for number in 0..200 {
        submitted(&authority, &nodes[0], &format!("job-{number}")).await;
    }
    eventually("all have snapshots", || async { nodes.iter().all(|node| node.snapshots() > 0).then_some(()) }).await;
    let differing = (leader(&nodes).await + 1) % 3;
    let stopped = nodes.remove(differing).stop();
    change_a_record(&stopped.data_dir);

    // Twice: what a supervisor starts again is found again, on a grid where nothing happens.
    for _ in 0..2 {
        let mut child = process(&stopped, authority.folder.path());
        assert_eq!(exit_code(&mut child).await, 72);
        let log = fs::read_to_string(authority.folder.path().join(format!("{}.log", stopped.name))).unwrap();
        assert!(log.contains("isn't that of a majority"), "{log}");
    }
    submitted(&authority, &nodes[0], "after").await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_one_to_one_no_new_jobs_are_taken_until_the_third_has_spoken() {
    use proto::v1::job_service_client::JobServiceClient;
    use tonic::Code;

    let authority = Authority::new();
    let mut nodes = three(&authority).await;
    for number in 0..200 {
        submitted(&authority, &nodes[0], &format!("job-{number}")).await;
    }
    eventually("all have snapshots", || async { nodes.iter().all(|node| node.snapshots() > 0).then_some(()) }).await;
    let third = nodes.remove(2).stop();
    let other = nodes.remove(1).stop();
    change_a_record(&other.data_dir);
    let mut child = process(&other, authority.folder.path());
    let refused = eventually("a submit is refused", || async {
        let mut client = JobServiceClient::new(authority.client(&nodes[0]).await);
        let answer = client.submit_job(crate::support::submit("")).await;
        answer.err().filter(|status| status.code() == Code::FailedPrecondition)
    })
    .await;
    assert_eq!(crate::support::reason(&refused), "DIVERGED");
    assert!(child.try_wait().unwrap().is_none(), "nobody knows which of the two is right");

    nodes.push(Node::start(third));
    assert_eq!(exit_code(&mut child).await, 72);
    eventually("new jobs are taken again", || async {
        let mut client = JobServiceClient::new(authority.client(&nodes[0]).await);
        client.submit_job(crate::support::submit("after")).await.ok()
    })
    .await;
    agreed_but_one(&authority, &nodes).await;
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

async fn agreed_but_one(authority: &Authority, nodes: &[Node]) {
    use proto::v1::{GetClusterStatusRequest, cluster_service_client::ClusterServiceClient};
    eventually("the two have one digest of the whole state", || async {
        let mut client = ClusterServiceClient::new(authority.client(&nodes[0]).await);
        let status = client.get_cluster_status(GetClusterStatusRequest {}).await.unwrap().into_inner();
        let here: Vec<_> = status.members.iter().filter(|member| member.reachable).collect();
        let equal = here.iter().all(|member| member.state_digest == here[0].state_digest);
        (here.len() == 2 && equal && here[0].state_digest_index > 0).then_some(())
    })
    .await
}
