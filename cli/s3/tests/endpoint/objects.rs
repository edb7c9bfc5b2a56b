use std::{fs, time::Duration};

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, Delete, MetadataDirective, ObjectIdentifier},
};

use crate::harness::{BUCKET, Endpoint};

pub async fn put(endpoint: &Endpoint, key: &str, body: &[u8]) -> String {
    let put = endpoint.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(body.to_vec()));
    put.send().await.unwrap().e_tag.unwrap()
}

pub async fn get(endpoint: &Endpoint, key: &str) -> Vec<u8> {
    let got = endpoint.client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    got.body.collect().await.unwrap().to_vec()
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let endpoint = Endpoint::start().await;
    let put = endpoint.client.put_object().bucket(BUCKET).key("a/b c/é.txt").body(ByteStream::from_static(b"hello"));
    let put = put.content_type("text/plain").metadata("job", "42").send().await.unwrap();
    assert_eq!(put.e_tag.as_deref(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(fs::read(endpoint.file("a/b c/é.txt")).unwrap(), b"hello");

    let head = endpoint.client.head_object().bucket(BUCKET).key("a/b c/é.txt").send().await.unwrap();
    assert_eq!((head.content_length, head.content_type.as_deref()), (Some(5), Some("text/plain")));
    assert_eq!(head.metadata.unwrap()["job"], "42");
    assert_eq!(head.e_tag, put.e_tag);
    assert_eq!(get(&endpoint, "a/b c/é.txt").await, b"hello");
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let endpoint = Endpoint::start().await;
    put(&endpoint, "empty", b"").await;
    assert_eq!(get(&endpoint, "empty").await, b"");
}

#[tokio::test]
async fn a_large_body_travels_in_pieces_both_ways() {
    let endpoint = Endpoint::start().await;
    let body: Vec<u8> = (0..9_000_001u32).map(|n| (n * 7 % 251) as u8).collect();
    for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32C, ChecksumAlgorithm::Sha256] {
        let put = endpoint.client.put_object().bucket(BUCKET).key("large").checksum_algorithm(algorithm);
        put.body(ByteStream::from(body.clone())).send().await.unwrap();
        assert!(get(&endpoint, "large").await == body);
    }
    // A file's stream has no hash in front: it is signed in chunks, with its checksum behind.
    let path = endpoint.root().join("from-a-file");
    fs::write(&path, &body).unwrap();
    let stream = ByteStream::from_path(&path).await.unwrap();
    endpoint.client.put_object().bucket(BUCKET).key("streamed").body(stream).send().await.unwrap();
    assert!(fs::read(endpoint.file("streamed")).unwrap() == body);
    let head = endpoint.client.head_object().bucket(BUCKET).key("streamed").send().await.unwrap();
    assert_eq!(head.content_encoding, None);
}

#[tokio::test]
async fn ranges_are_cut_as_http_says() {
    let endpoint = Endpoint::start().await;
    put(&endpoint, "digits", b"0123456789").await;
    let check = async |range: &str, expected: Result<(&str, &str), &str>| {
        let got = endpoint.client.get_object().bucket(BUCKET).key("digits").range(range).send().await;
        let got = match got {
            Ok(got) => {
                let shown = got.content_range.clone().unwrap();
                Ok((String::from_utf8(got.body.collect().await.unwrap().to_vec()).unwrap(), shown))
            }
            Err(error) => Err(error.code().unwrap().to_owned()),
        };
        let expected = expected.map(|(body, shown)| (body.to_owned(), shown.to_owned())).map_err(str::to_owned);
        assert_eq!(got, expected, "{range}");
    };
    check("bytes=0-0", Ok(("0", "bytes 0-0/10"))).await;
    check("bytes=3-5", Ok(("345", "bytes 3-5/10"))).await;
    check("bytes=7-", Ok(("789", "bytes 7-9/10"))).await;
    check("bytes=-2", Ok(("89", "bytes 8-9/10"))).await;
    check("bytes=5-99", Ok(("56789", "bytes 5-9/10"))).await;
    check("bytes=10-", Err("InvalidRange")).await;
}

#[tokio::test]
async fn conditions_are_checked_against_the_etag() {
    let endpoint = Endpoint::start().await;
    let etag = put(&endpoint, "key", b"one").await;
    let read = || endpoint.client.get_object().bucket(BUCKET).key("key");
    read().if_match(&etag).send().await.unwrap();
    read().if_none_match("\"other\"").send().await.unwrap();
    let refused = read().if_match("\"other\"").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("PreconditionFailed"));
    let same = read().if_none_match(&etag).send().await.unwrap_err();
    assert_eq!(same.raw_response().unwrap().status().as_u16(), 304);

    let write = |key: &str| endpoint.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"two"));
    let refused = write("key").if_none_match("*").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("PreconditionFailed"));
    assert_eq!(get(&endpoint, "key").await, b"one");
    write("new").if_none_match("*").send().await.unwrap();
    write("key").if_match(&etag).send().await.unwrap();
    assert_eq!(write("key").if_match(&etag).send().await.unwrap_err().code(), Some("PreconditionFailed"));
}

#[tokio::test]
async fn a_file_put_there_by_hand_is_an_object() {
    let endpoint = Endpoint::start().await;
    fs::create_dir_all(endpoint.file("in/deep")).unwrap();
    fs::write(endpoint.file("in/deep/file"), b"by hand").unwrap();
    assert_eq!(get(&endpoint, "in/deep/file").await, b"by hand");
    let head = || endpoint.client.head_object().bucket(BUCKET).key("in/deep/file").send();
    let first = head().await.unwrap().e_tag.unwrap();
    assert_eq!(head().await.unwrap().e_tag.unwrap(), first);
    endpoint.client.get_object().bucket(BUCKET).key("in/deep/file").if_match(&first).send().await.unwrap();
    fs::remove_file(endpoint.file("in/deep/file")).unwrap();
    assert!(head().await.unwrap_err().into_service_error().is_not_found());
}

#[tokio::test]
async fn what_was_said_of_an_object_ends_when_its_file_is_edited() {
    let endpoint = Endpoint::start().await;
    let put = endpoint.client.put_object().bucket(BUCKET).key("key").metadata("job", "1");
    let etag = put.body(ByteStream::from_static(b"before")).send().await.unwrap().e_tag;
    fs::write(endpoint.file("key"), b"after").unwrap();
    let head = endpoint.client.head_object().bucket(BUCKET).key("key").send().await.unwrap();
    assert_ne!(head.e_tag, etag);
    assert_eq!(head.metadata.unwrap_or_default().len(), 0);
    assert_eq!(get(&endpoint, "key").await, b"after");
}

#[tokio::test]
async fn a_reader_keeps_the_object_it_began_to_read() {
    let endpoint = Endpoint::start().await;
    let old = vec![1; 4_000_000];
    put(&endpoint, "key", &old).await;
    let reading = endpoint.client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
    put(&endpoint, "key", b"new").await;
    endpoint.client.delete_object().bucket(BUCKET).key("key").send().await.unwrap();
    assert!(reading.body.collect().await.unwrap().to_vec() == old);
}

#[tokio::test]
async fn of_many_puts_to_one_key_one_wins_whole() {
    let endpoint = Endpoint::start().await;
    let puts = (0..40u8).map(|n| {
        let put = endpoint.client.put_object().bucket(BUCKET).key("deep/er/key").metadata("n", n.to_string());
        put.body(ByteStream::from(vec![n; 100_000])).send()
    });
    let etags: Vec<_> = futures::future::join_all(puts).await.into_iter().map(|put| put.unwrap().e_tag).collect();
    let got = endpoint.client.get_object().bucket(BUCKET).key("deep/er/key").send().await.unwrap();
    let winner: u8 = got.metadata().unwrap()["n"].parse().unwrap();
    assert_eq!(got.e_tag, etags[usize::from(winner)]);
    assert!(got.body.collect().await.unwrap().to_vec() == vec![winner; 100_000]);
    let records = fs::read_dir(endpoint.root().join(".millgrid-s3/records").join(BUCKET)).unwrap();
    assert_eq!(records.count(), 1);
}

#[tokio::test]
async fn puts_and_deletes_in_one_folder_do_not_disturb_each_other() {
    let endpoint = Endpoint::start().await;
    let rounds = (0..8).map(async |n| {
        for _ in 0..20 {
            let key = format!("folder/inner/{n}");
            put(&endpoint, &key, b"x").await;
            endpoint.client.delete_object().bucket(BUCKET).key(&key).send().await.unwrap();
        }
    });
    tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(rounds)).await.unwrap();
    assert_eq!(fs::read_dir(endpoint.file("")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_copy_has_the_metadata_unless_that_is_replaced() {
    let endpoint = Endpoint::start().await;
    let put = endpoint.client.put_object().bucket(BUCKET).key("from").metadata("a", "1");
    put.body(ByteStream::from_static(b"body")).send().await.unwrap();
    let copy = |to: &str| endpoint.client.copy_object().bucket(BUCKET).key(to).copy_source("dev/from");
    copy("same").send().await.unwrap();
    copy("other").metadata_directive(MetadataDirective::Replace).metadata("b", "2").send().await.unwrap();
    for (key, name) in [("same", "a"), ("other", "b")] {
        let head = endpoint.client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(head.metadata.unwrap().into_keys().collect::<Vec<_>>(), [name]);
        assert_eq!(get(&endpoint, key).await, b"body");
    }
}

#[tokio::test]
async fn deleting_is_repeatable_and_takes_empty_folders_along() {
    let endpoint = Endpoint::start().await;
    put(&endpoint, "keep", b"").await;
    put(&endpoint, "a/b/c", b"").await;
    put(&endpoint, "a/d", b"").await;
    let objects = ["a/b/c", "a/d", "never", "x/../y"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
    let delete = Delete::builder().set_objects(Some(objects.to_vec())).build().unwrap();
    for _ in 0..2 {
        let done = endpoint.client.delete_objects().bucket(BUCKET).delete(delete.clone()).send().await.unwrap();
        assert_eq!(done.deleted().len(), 3);
        assert_eq!(done.errors()[0].code(), Some("InvalidArgument"));
    }
    let names: Vec<_> = fs::read_dir(endpoint.file("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["keep"]);
}

#[tokio::test]
async fn buckets_are_folders() {
    let endpoint = Endpoint::start().await;
    endpoint.client.create_bucket().bucket("second").send().await.unwrap();
    assert!(endpoint.root().join("second").is_dir());
    let again = endpoint.client.create_bucket().bucket("second").send().await.unwrap_err();
    assert_eq!(again.code(), Some("BucketAlreadyOwnedByYou"));
    let listed = endpoint.client.list_buckets().send().await.unwrap();
    assert_eq!(listed.buckets().iter().map(|bucket| bucket.name().unwrap()).collect::<Vec<_>>(), ["dev", "second"]);
    endpoint.client.head_bucket().bucket("second").send().await.unwrap();
    fs::write(endpoint.root().join("second/file"), "").unwrap();
    let full = endpoint.client.delete_bucket().bucket("second").send().await.unwrap_err();
    assert_eq!(full.code(), Some("BucketNotEmpty"));
    fs::remove_file(endpoint.root().join("second/file")).unwrap();
    endpoint.client.delete_bucket().bucket("second").send().await.unwrap();
    assert!(endpoint.client.head_bucket().bucket("second").send().await.is_err());
}
