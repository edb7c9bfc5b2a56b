//! Every method has an entry in the table, and refuses whoever isn't in it.

use std::collections::{BTreeMap, BTreeSet};

use coordinator::permissions::{METHODS, roles};
use prost::Message as _;
use proto::v1::Role;
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::support::{Authority, Issued, Node, reason};

/// Service, method: what follows the package and the service's name.
#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// Every method that is served, from the descriptors.
fn methods() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for descriptors in [
        proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in Files::decode(descriptors).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    paths.insert(format!("/{}.{}/{}", file.package, service.name, method.name));
                }
            }
        }
    }
    paths
}

#[test]
fn every_method_has_one_entry_in_the_table() {
    let listed: BTreeMap<&str, _> = METHODS.iter().copied().collect();
    assert_eq!(listed.len(), METHODS.len(), "an entry stands twice");
    let served = methods();
    assert!(served.len() > 30, "the descriptors were not read: {served:?}");
    assert_eq!(listed.keys().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>(), served);
    assert!(roles("/millgrid.v1.JobService/DropEverything").is_empty());
}

/// Calls with an empty message; what comes first.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<(), ()>::default();
    let path: PathAndQuery = path.parse().unwrap();
    grpc.server_streaming(Request::new(()), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn each_wrong_role_is_refused_by_each_method_and_each_right_one_is_not() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    for (role, unit) in [(Role::Client, "client"), (Role::Worker, "worker"), (Role::Coordinator, "coordinator")] {
        let issued = authority.issue("millgrid", unit, "somebody");
        let public = authority.connect(node.addresses.grpc.port(), Some(&issued)).await.unwrap();
        let peers = authority.connect(node.addresses.peer.port(), Some(&issued)).await.unwrap();
        for (path, allowed) in METHODS {
            let internal = path.starts_with("/millgrid.internal.");
            let (own, other) = if internal { (&peers, &public) } else { (&public, &peers) };
            let answer = call(own, path).await;
            if allowed.contains(&role) {
                let code = answer.err().map_or(Code::Ok, |status| status.code());
                let refused = [Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented].contains(&code);
                assert!(!refused, "{path} is refused to {unit}: {code:?}");
                assert_eq!(
                    call(other, path).await.unwrap_err().code(),
                    Code::Unimplemented,
                    "{path} on the other port"
                );
            } else {
                let status = answer.expect_err(path);
                assert_eq!(status.code(), Code::PermissionDenied, "{path} by {unit}");
                assert_eq!(reason(&status), "PERMISSION_DENIED");
                assert_eq!(call(other, path).await.unwrap_err().code(), Code::PermissionDenied, "{path} by {unit}");
            }
        }
        let status = call(&public, "/millgrid.v1.JobService/DropEverything").await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    node.stop();
}

#[tokio::test]
async fn whoever_has_no_certificate_of_the_grid_reaches_no_method() {
    let authority = Authority::new();
    let node = Node::new(&authority, "c1");
    let stranger = Authority::new().issue("millgrid", "client", "alice");
    for port in [node.addresses.grpc.port(), node.addresses.peer.port()] {
        for issued in [None, Some(&stranger)] {
            // The handshake is refused; when that is noticed hangs on TLS 1.3's order of messages.
            if let Ok(channel) = authority.connect(port, issued).await {
                for (path, _) in METHODS {
                    // The transport's own words, of which there are many; never those of a handler or of the table.
                    let status = call(&channel, path).await.expect_err(path);
                    let answered = [Code::PermissionDenied, Code::Unimplemented, Code::InvalidArgument];
                    assert!(reason(&status).is_empty() && !answered.contains(&status.code()), "{path}: {status}");
                }
            }
        }
        for issued in [
            authority.issue("acme", "client", "alice"),
            authority.issue("millgrid", "admin", "alice"),
            authority.issue("millgrid", "client", ""),
        ] {
            refuses_the_unidentified(&authority, port, &issued).await;
        }
    }
    node.stop();
}

/// Signed by the authority, but naming nobody.
async fn refuses_the_unidentified(authority: &Authority, port: u16, issued: &Issued) {
    let channel = authority.connect(port, Some(issued)).await.unwrap();
    for (path, _) in METHODS {
        let status = call(&channel, path).await.expect_err(path);
        assert_eq!(status.code(), Code::Unauthenticated, "{path}");
    }
}
