//! What doesn't belong on a port harms that connection alone.

use std::time::Duration;

use proto::v1::{
    GetMemberRequest, UploadBlobRequest, cluster_service_client::ClusterServiceClient,
    job_service_client::JobServiceClient,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

use crate::support::{Authority, Node, connector, reason};

/// Reads until the other end closes.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("the connection is closed");
}

fn garbage() -> Vec<u8> {
    (0..4_096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test]
async fn garbage_on_a_port_closes_that_connection_and_nothing_else() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    let mut client = ClusterServiceClient::new(authority.client(&node).await);
    let connector = connector(&authority);
    for port in [node.addresses.grpc.port(), node.addresses.peer.port(), node.addresses.http.port()] {
        let mut raw = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        raw.write_all(&garbage()).await.unwrap();
        closed(&mut raw).await;

        let plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut inside = connector.connect(ServerName::try_from("localhost").unwrap(), plain).await.unwrap();
        inside.write_all(&garbage()).await.unwrap();
        closed(&mut inside).await;

        client.get_member(GetMemberRequest {}).await.unwrap();
    }
    node.stop();
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_the_limit() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    let mut client = JobServiceClient::new(authority.client(&node).await);
    let status = client.upload_blob(UploadBlobRequest { data: vec![0; 5 << 20].into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
    assert!(status.message().contains("4 MiB"), "{status}");
    node.stop();
}
