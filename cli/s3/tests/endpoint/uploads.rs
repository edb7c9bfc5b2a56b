use std::fs;

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};

use crate::{
    harness::{BUCKET, Endpoint},
    objects::get,
};

pub const PART: usize = 5 << 20;

pub fn list(parts: &[(i32, &str)]) -> CompletedMultipartUpload {
    let parts = parts.iter().map(|(number, etag)| CompletedPart::builder().part_number(*number).e_tag(*etag).build());
    CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build()
}

async fn begin(endpoint: &Endpoint, key: &str) -> String {
    let create = endpoint.client.create_multipart_upload().bucket(BUCKET).key(key).metadata("attempt", "3");
    create.send().await.unwrap().upload_id.unwrap()
}

async fn part(endpoint: &Endpoint, key: &str, id: &str, number: i32, body: Vec<u8>) -> String {
    let upload = endpoint.client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
    upload.body(ByteStream::from(body)).send().await.unwrap().e_tag.unwrap()
}

#[tokio::test]
async fn parts_become_an_object_at_the_completion_and_not_before() {
    let endpoint = Endpoint::start().await;
    let id = begin(&endpoint, "out/x").await;
    let second = part(&endpoint, "out/x", &id, 7, vec![2; 10]).await;
    let stale = part(&endpoint, "out/x", &id, 1, vec![9; PART]).await;
    let first = part(&endpoint, "out/x", &id, 1, vec![1; PART]).await;
    assert!(!endpoint.file("out").exists());
    let listed = endpoint.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.uploads()[0].upload_id(), Some(id.as_str()));
    let parts = endpoint.client.list_parts().bucket(BUCKET).key("out/x").upload_id(&id).send().await.unwrap();
    let parts: Vec<_> = parts.parts().iter().map(|part| (part.part_number.unwrap(), part.size.unwrap())).collect();
    assert_eq!(parts, [(1, PART as i64), (7, 10)]);

    let complete = async |parts: &[(i32, &str)]| {
        let call = endpoint.client.complete_multipart_upload().bucket(BUCKET).key("out/x").upload_id(&id);
        let done = call.multipart_upload(list(parts)).send().await;
        done.map(|done| done.e_tag.unwrap()).map_err(|error| error.code().unwrap().to_owned())
    };
    assert_eq!(complete(&[(1, &stale), (7, &second)]).await, Err("InvalidPart".into()));
    assert_eq!(complete(&[(7, &second), (1, &first)]).await, Err("InvalidPartOrder".into()));
    assert_eq!(complete(&[(1, &first), (2, &second)]).await, Err("InvalidPart".into()));
    assert!(!endpoint.file("out").exists());

    let etag = complete(&[(1, &first), (7, &second)]).await.unwrap();
    assert!(etag.ends_with("-2\""));
    // Completing twice, as after an answer that was lost, changes nothing and says the same.
    assert_eq!(complete(&[(1, &first), (7, &second)]).await, Ok(etag.clone()));
    let head = endpoint.client.head_object().bucket(BUCKET).key("out/x").send().await.unwrap();
    assert_eq!(head.e_tag, Some(etag));
    assert_eq!(head.metadata.unwrap()["attempt"], "3");
    assert!(get(&endpoint, "out/x").await == [vec![1; PART], vec![2; 10]].concat());
    let listed = endpoint.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert!(listed.uploads().is_empty());
    assert_eq!(fs::read_dir(endpoint.root().join(".millgrid-s3/uploads")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(endpoint.root().join(".millgrid-s3/temporary")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_completion_repeated_behind_a_newer_put_does_not_bring_the_old_object_back() {
    let endpoint = Endpoint::start().await;
    let id = begin(&endpoint, "key").await;
    let etag = part(&endpoint, "key", &id, 1, b"old".to_vec()).await;
    let complete = || {
        let call = endpoint.client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
        call.multipart_upload(list(&[(1, &etag)])).send()
    };
    complete().await.unwrap();
    crate::objects::put(&endpoint, "key", b"new").await;
    complete().await.unwrap();
    assert_eq!(get(&endpoint, "key").await, b"new");
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let endpoint = Endpoint::start().await;
    let id = begin(&endpoint, "key").await;
    let etag = part(&endpoint, "key", &id, 1, b"body".to_vec()).await;
    let abort = || endpoint.client.abort_multipart_upload().bucket(BUCKET).key("key").upload_id(&id).send();
    abort().await.unwrap();
    assert_eq!(abort().await.unwrap_err().code(), Some("NoSuchUpload"));
    let complete = endpoint.client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
    let refused = complete.multipart_upload(list(&[(1, &etag)])).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("NoSuchUpload"));
    let upload = endpoint.client.upload_part().bucket(BUCKET).key("key").upload_id(&id).part_number(1);
    let refused = upload.body(ByteStream::from_static(b"x")).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("NoSuchUpload"));
    assert!(!endpoint.file("key").exists());
}

#[tokio::test]
async fn an_upload_belongs_to_its_key_and_is_no_path() {
    let endpoint = Endpoint::start().await;
    let id = begin(&endpoint, "key").await;
    for (key, id) in [("other", id.as_str()), ("key", "../records"), ("key", "")] {
        let upload = endpoint.client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(1);
        assert!(upload.body(ByteStream::from_static(b"x")).send().await.is_err(), "{key} {id}");
    }
}

#[tokio::test]
async fn small_parts_in_front_are_refused() {
    let endpoint = Endpoint::start().await;
    let id = begin(&endpoint, "key").await;
    let one = part(&endpoint, "key", &id, 1, b"small".to_vec()).await;
    let two = part(&endpoint, "key", &id, 2, b"last".to_vec()).await;
    let complete = endpoint.client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
    let refused = complete.multipart_upload(list(&[(1, &one), (2, &two)])).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("EntityTooSmall"));
}

#[tokio::test]
async fn checksums_of_parts_become_the_objects() {
    let endpoint = Endpoint::start().await;
    for kind in [ChecksumType::Composite, ChecksumType::FullObject] {
        let create = endpoint.client.create_multipart_upload().bucket(BUCKET).key("key").checksum_type(kind.clone());
        let created = create.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await.unwrap();
        let id = created.upload_id.unwrap();
        let upload = endpoint.client.upload_part().bucket(BUCKET).key("key").upload_id(&id).part_number(1);
        let upload = upload.checksum_algorithm(ChecksumAlgorithm::Crc32).body(ByteStream::from_static(b"hello"));
        let part = upload.send().await.unwrap();
        assert_eq!(part.checksum_crc32(), Some("NhCmhg=="));
        let complete = |sum: &str| {
            let part = CompletedPart::builder().part_number(1).e_tag(part.e_tag().unwrap()).checksum_crc32(sum);
            let parts = CompletedMultipartUpload::builder().parts(part.build()).build();
            let call = endpoint.client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(&id);
            call.multipart_upload(parts).send()
        };
        assert_eq!(complete("AAAAAA==").await.unwrap_err().code(), Some("InvalidPart"));
        let done = complete("NhCmhg==").await.unwrap();
        assert_eq!(done.checksum_type, Some(kind.clone()));
        match kind {
            ChecksumType::FullObject => assert_eq!(done.checksum_crc32(), Some("NhCmhg==")),
            _ => assert!(done.checksum_crc32().unwrap().ends_with("-1")),
        }
        assert_eq!(get(&endpoint, "key").await, b"hello");
    }
}
