use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
};

use aws_sdk_s3::{error::ProvideErrorMetadata, primitives::ByteStream};

use crate::{
    harness::{BUCKET, Endpoint},
    objects::{get, put},
};

#[tokio::test]
async fn keys_that_leave_the_bucket_or_can_be_no_file_are_refused() {
    let endpoint = Endpoint::start().await;
    fs::write(endpoint.root().join("secret"), "secret").unwrap();
    for key in ["../secret", "a/../../secret", "a/./b", "a//b", "a/", "/etc/x", "zero\0byte", &"x".repeat(300)] {
        let put = endpoint.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x"));
        assert_eq!(put.send().await.unwrap_err().code(), Some("InvalidArgument"), "{key}");
        let read = endpoint.client.get_object().bucket(BUCKET).key(key).send().await.unwrap_err();
        assert!(matches!(read.code(), Some("InvalidArgument" | "NoSuchKey")), "{key}: {read:?}");
    }
    assert_eq!(fs::read_dir(endpoint.file("")).unwrap().count(), 0);
    assert_eq!(fs::read(endpoint.root().join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn links_are_no_objects() {
    let endpoint = Endpoint::start().await;
    fs::write(endpoint.root().join("outside"), "secret").unwrap();
    symlink(endpoint.root().join("outside"), endpoint.file("link")).unwrap();
    symlink(endpoint.root(), endpoint.file("folder")).unwrap();
    for key in ["link", "folder/outside"] {
        let read = endpoint.client.get_object().bucket(BUCKET).key(key).send().await.unwrap_err();
        assert_eq!(read.code(), Some("NoSuchKey"), "{key}");
    }
    let write = endpoint.client.put_object().bucket(BUCKET).key("folder/new").body(ByteStream::from_static(b"x"));
    assert_eq!(write.send().await.unwrap_err().code(), Some("InvalidRequest"));
    assert!(!endpoint.root().join("new").exists());
    let listed = endpoint.client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.key_count, Some(0));
}

#[tokio::test]
async fn a_key_below_another_objects_key_is_refused_clearly() {
    let endpoint = Endpoint::start().await;
    put(&endpoint, "a", b"object").await;
    put(&endpoint, "b/c", b"object").await;
    for key in ["a/below", "b"] {
        let write = endpoint.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x"));
        let refused = write.send().await.unwrap_err();
        assert_eq!(refused.code(), Some("InvalidRequest"));
        assert!(refused.message().unwrap().contains(&format!("`{key}`")));
    }
    assert_eq!(get(&endpoint, "a").await, b"object");
    assert_eq!(get(&endpoint, "b/c").await, b"object");
    // A folder that holds no object is in nobody's way.
    fs::create_dir(endpoint.file("d")).unwrap();
    put(&endpoint, "d", b"object").await;
}

#[tokio::test]
async fn a_body_that_is_not_what_was_said_leaves_nothing() {
    let endpoint = Endpoint::start().await;
    let write = || endpoint.client.put_object().bucket(BUCKET).key("key").body(ByteStream::from_static(b"hello"));
    let refused = write().checksum_crc32("AAAAAA==").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("BadDigest"));
    let refused = write().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("BadDigest"));
    assert!(!endpoint.file("key").exists());
    assert_eq!(fs::read_dir(endpoint.root().join(".millgrid-s3/temporary")).unwrap().count(), 0);
    write().checksum_crc32("NhCmhg==").content_md5("XUFAKrxLKna5cZ2REBfFkg==").send().await.unwrap();
}

#[tokio::test]
async fn only_the_right_signature_is_accepted() {
    let endpoint = Endpoint::start().await;
    put(&endpoint, "key", b"secret").await;
    let other = endpoint.client_with_another_secret();
    let refused = other.get_object().bucket(BUCKET).key("key").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("SignatureDoesNotMatch"));

    let mut stream = TcpStream::connect(endpoint.address).unwrap();
    stream.write_all(b"GET /dev/key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(!answer.contains("secret"));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let endpoint = Endpoint::start().await;
    let read = endpoint.client.get_object().bucket(BUCKET).key("never").send().await.unwrap_err();
    assert_eq!(read.code(), Some("NoSuchKey"));
    let read = endpoint.client.get_object().bucket("nowhere").key("never").send().await.unwrap_err();
    assert_eq!(read.code(), Some("NoSuchBucket"));
    let write = endpoint.client.put_object().bucket("nowhere").key("x").body(ByteStream::from_static(b"x"));
    assert_eq!(write.send().await.unwrap_err().code(), Some("NoSuchBucket"));
    assert!(!endpoint.root().join("nowhere").exists());
}

#[tokio::test]
async fn a_folder_is_served_by_one_process_and_on_loopback_alone() {
    let endpoint = Endpoint::start().await;
    put(&endpoint, "key", b"x").await;
    let credentials = || dev_s3::Credentials { access_key: "a".into(), secret_key: "b".into() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = dev_s3::serve(listener, endpoint.root().to_owned(), credentials(), std::future::pending()).await;
    assert!(matches!(second, Err(dev_s3::Failure::InUse(_))));
    assert_eq!(get(&endpoint, "key").await, b"x");
}
