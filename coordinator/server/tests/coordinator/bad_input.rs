//! What doesn't belong on a port harms that connection alone.

use std::{sync::Arc, time::Duration};

use proto::v1::{
    GetMemberRequest, UploadBlobRequest, cluster_service_client::ClusterServiceClient,
    job_service_client::JobServiceClient,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::Code;

use crate::support::{Authority, Node, reason};

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

fn connector(authority: &Authority) -> TlsConnector {
    let issued = authority.issue("millgrid", "client", "alice");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.folder.path().join("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
    TlsConnector::from(Arc::new(config))
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

#[tokio::test]
async fn health_and_metrics_need_a_certificate_and_say_what_is_missing() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    let connector = connector(&authority);
    for (path, expected) in [
        ("/livez", "200 OK"),
        ("/readyz", "millgrid cluster bootstrap"),
        ("/leaderz", "503 Service Unavailable"),
        ("/metrics", "millgrid_log_sync_seconds_count 0"),
        ("/metrics", "millgrid_disk_low 0"),
        ("/nothing", "404 Not Found"),
    ] {
        let plain = TcpStream::connect(node.addresses.http).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), plain).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    node.stop();
}
