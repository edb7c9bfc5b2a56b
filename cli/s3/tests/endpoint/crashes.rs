use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::primitives::ByteStream;

use crate::{
    harness::{BUCKET, Victim},
    uploads::{PART, list},
};

#[tokio::test]
async fn an_upload_outlives_a_kill_between_any_of_its_steps() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(BUCKET)).unwrap();
    let victim = Victim::start(root.path());
    let create = victim.client.create_multipart_upload().bucket(BUCKET).key("out").metadata("job", "7");
    let id = create.send().await.unwrap().upload_id.unwrap();
    let mut etags = Vec::new();
    victim.kill();
    for (number, body) in [(1, vec![b'a'; PART]), (2, b"end".to_vec())] {
        let victim = Victim::start(root.path());
        let upload = victim.client.upload_part().bucket(BUCKET).key("out").upload_id(&id).part_number(number);
        etags.push(upload.body(ByteStream::from(body)).send().await.unwrap().e_tag.unwrap());
        victim.kill();
    }
    let mut answers = Vec::new();
    for _ in 0..2 {
        let victim = Victim::start(root.path());
        let complete = victim.client.complete_multipart_upload().bucket(BUCKET).key("out").upload_id(&id);
        let complete = complete.multipart_upload(list(&[(1, &etags[0]), (2, &etags[1])]));
        answers.push(complete.send().await.unwrap().e_tag);
        victim.kill();
    }
    assert_eq!(answers[0], answers[1]);
    let victim = Victim::start(root.path());
    let head = victim.client.head_object().bucket(BUCKET).key("out").send().await.unwrap();
    assert_eq!((head.content_length, head.e_tag), (Some(PART as i64 + 3), answers[0].clone()));
    assert_eq!(head.metadata.unwrap()["job"], "7");
    victim.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_writes_leaves_whole_objects_and_every_acknowledged_one() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(BUCKET)).unwrap();
    for round in 0..4u8 {
        let victim = Victim::start(root.path());
        let acknowledged = AtomicUsize::new(0);
        let client = victim.client.clone();
        let (sender, mut enough) = tokio::sync::mpsc::channel::<()>(100);
        let writers = (0..4u8).map(|writer| {
            let (client, sender, acknowledged) = (client.clone(), sender.clone(), &acknowledged);
            async move {
                let mut last = None;
                for n in 0u8.. {
                    let (key, byte) = (format!("w{writer}/{}", n % 3), n.wrapping_add(round * 50));
                    if !write(&client, &key, byte, n % 2 == 0).await {
                        break;
                    }
                    last = Some((key, byte));
                    if acknowledged.fetch_add(1, Ordering::Relaxed) == 30 {
                        sender.send(()).await.unwrap();
                    }
                }
                last
            }
        });
        let killer = async move {
            enough.recv().await.unwrap();
            victim.kill();
        };
        let (lasts, ()) = tokio::join!(futures::future::join_all(writers), killer);
        for entry in walk(&root.path().join(BUCKET)) {
            let bytes = std::fs::read(&entry).unwrap();
            assert_eq!(bytes.len(), 300_000, "{entry:?}");
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{entry:?} is of two writes");
        }
        for (key, byte) in lasts.into_iter().flatten() {
            // The write behind the acknowledged one may have happened too, to another key.
            assert_eq!(std::fs::read(root.path().join(BUCKET).join(&key)).unwrap()[0], byte, "{key}");
        }
    }
    let victim = Victim::start(root.path());
    let listed = victim.client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.key_count, Some(12));
    // An answer means that the store is open, and with that tidied up.
    assert_eq!(std::fs::read_dir(root.path().join(".millgrid-s3/temporary")).unwrap().count(), 0);
    for object in listed.contents() {
        let key = object.key().unwrap();
        let got = victim.client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(got.e_tag(), object.e_tag());
        assert_eq!(got.body.collect().await.unwrap().to_vec().len(), 300_000);
    }
    victim.kill();
}

/// Writes 300,000 times one byte, at once or as an upload; whether it was acknowledged.
async fn write(client: &aws_sdk_s3::Client, key: &str, byte: u8, at_once: bool) -> bool {
    let body = || ByteStream::from(vec![byte; 300_000]);
    if at_once {
        return client.put_object().bucket(BUCKET).key(key).body(body()).send().await.is_ok();
    }
    let Ok(created) = client.create_multipart_upload().bucket(BUCKET).key(key).send().await else { return false };
    let id = created.upload_id.unwrap();
    let part = client.upload_part().bucket(BUCKET).key(key).upload_id(&id).part_number(1).body(body());
    let Ok(part) = part.send().await else { return false };
    let complete = client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(&id);
    complete.multipart_upload(list(&[(1, part.e_tag().unwrap())])).send().await.is_ok()
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
