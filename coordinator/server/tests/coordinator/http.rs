//! Health and metrics.

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cluster::submitted,
    support::{Authority, Node, connector, eventually, three},
};

/// Head and body of an answer.
async fn get(authority: &Authority, node: &Node, path: &str) -> String {
    let plain = TcpStream::connect(node.addresses.http).await.unwrap();
    let mut stream = connector(authority).connect(ServerName::try_from("localhost").unwrap(), plain).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn health_and_metrics_say_what_is_missing() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    for (path, expected) in [
        ("/livez", "200 OK"),
        ("/readyz", "millgrid cluster bootstrap"),
        ("/leaderz", "503 Service Unavailable"),
        ("/metrics", "millgrid_log_sync_seconds_count 0"),
        ("/metrics", "millgrid_disk_low 0"),
        ("/nothing", "404 Not Found"),
    ] {
        let answer = get(&authority, &node, path).await;
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_tells_how_much_there_is_to_do() {
    let authority = Authority::new();
    let nodes = three(&authority).await;
    submitted(&authority, &nodes[0], "one").await;
    for node in &nodes {
        eventually("it is told", || async {
            let answer = get(&authority, node, "/metrics").await;
            ["jobs_unended 1", "tasks_queued 1", "tasks_leased 0", "outputs_unpublished 0"]
                .iter()
                .all(|line| answer.contains(&format!("\nmillgrid_{line}\n")))
                .then_some(())
        })
        .await;
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}
