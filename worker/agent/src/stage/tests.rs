//! Staging against an S3 endpoint on a local folder.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::PathBuf,
};

use aws_sdk_s3::config::Credentials;
use proto::v1::{AttemptKey, Manifest, StoredManifest};

use super::{
    logs::{LogUploads, leftovers},
    *,
};

/// An endpoint, the folder of its bucket `dev`, and a task's directory.
struct Grid {
    root: tempfile::TempDir,
    stage: Stage,
}

impl Grid {
    async fn start() -> Grid {
        let root = tempfile::tempdir().unwrap();
        for folder in ["s3/dev", "cache", "task"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let credentials = dev_s3::Credentials { access_key: "key".into(), secret_key: "secret".into() };
        tokio::spawn(dev_s3::serve(listener, root.path().join("s3"), credentials, std::future::pending::<()>()));
        let stage = Stage::with_client(client(&endpoint), root.path().join("cache")).await.unwrap();
        Grid { root, stage }
    }

    fn object(&self, key: &str) -> PathBuf {
        self.root.path().join("s3/dev").join(key)
    }

    fn put(&self, key: &str, content: impl AsRef<[u8]>) {
        write(self.object(key), content);
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("task")
    }

    fn leave(&self, path: &str, content: impl AsRef<[u8]>) {
        write(self.directory().join(path), content);
    }

    async fn bring(&self, source: &str, path: &str) -> Result<(), StageFailure> {
        let input = ResolvedInput { source: source.into(), path: path.into(), etag: None };
        self.stage.stage_in(&self.directory(), &[input]).await
    }

    async fn take(&self, glob: &str, prefix: &str) -> Result<Manifest, StageFailure> {
        let output = ResolvedOutput { glob: glob.into(), prefix: prefix.into(), optional: false };
        self.stage.stage_out(&self.directory(), &[output], &labels(1), PREFIX).await
    }

    fn cached(&self) -> usize {
        fs::read_dir(self.root.path().join("cache/objects")).unwrap().count()
    }
}

const PREFIX: &str = "s3://dev/.grid/";

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .force_path_style(true);
    Client::from_conf(config.build())
}

fn write(path: PathBuf, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn labels(attempt: u32) -> UploadLabels {
    UploadLabels { cluster: "c".into(), job: 7, index: 3, attempt }
}

/// More than two parts, each byte telling where it is.
fn long() -> Vec<u8> {
    (0..(2 * PART_LEN + 12_345) / 4).flat_map(|word| (word as u32).to_le_bytes()).collect()
}

#[tokio::test]
async fn inputs_arrive_whole_whatever_their_size() {
    let grid = Grid::start().await;
    for (key, content) in [("empty", vec![]), ("short", b"short".to_vec()), ("long", long())] {
        grid.put(key, &content);
        grid.bring(&format!("s3://dev/{key}"), &format!("in/{key}")).await.unwrap();
        assert!(fs::read(grid.directory().join("in").join(key)).unwrap() == content, "{key}");
    }
}

#[tokio::test]
async fn a_prefix_becomes_a_folder() {
    let grid = Grid::start().await;
    for key in ["in/a", "in/deep/b", "other"] {
        grid.put(key, key);
    }
    grid.bring("s3://dev/in/", "all").await.unwrap();
    assert_eq!(fs::read_to_string(grid.directory().join("all/a")).unwrap(), "in/a");
    assert_eq!(fs::read_to_string(grid.directory().join("all/deep/b")).unwrap(), "in/deep/b");
    let failure = grid.bring("s3://dev/none/", "none").await.unwrap_err();
    assert_eq!(failure.detail, "s3://dev/none/: no such key: nothing has this prefix");
}

#[tokio::test]
async fn a_missing_input_names_its_key_and_is_not_retried() {
    let grid = Grid::start().await;
    let failure = grid.bring("s3://dev/in/x.fq", "x").await.unwrap_err();
    assert_eq!(failure, StageFailure { detail: "s3://dev/in/x.fq: no such key".into(), retryable: false });
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_retried() {
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stage = Stage::with_client(client(&format!("http://{address}")), directory.path().into()).await.unwrap();
    let failure = stage.put_object("s3://dev/x", Bytes::new()).await.unwrap_err();
    assert!(failure.retryable && failure.detail.starts_with("s3://dev/x: "), "{failure:?}");
}

#[tokio::test]
async fn an_input_stays_in_the_directory() {
    let grid = Grid::start().await;
    grid.put("x", "x");
    for path in ["../x", "/tmp/x", "a/../../x"] {
        let failure = grid.bring("s3://dev/x", path).await.unwrap_err();
        assert!(!failure.retryable && failure.detail.contains(path), "{failure:?}");
    }
    symlink("..", grid.directory().join("link")).unwrap();
    let failure = grid.bring("s3://dev/x", "link/x").await.unwrap_err();
    assert!(!failure.retryable, "{failure:?}");
    assert!(!grid.root.path().join("x").exists());
}

#[tokio::test]
async fn an_object_is_fetched_once_for_each_of_its_versions() {
    let grid = Grid::start().await;
    grid.put("x", "one");
    let (a, b) = tokio::join!(grid.bring("s3://dev/x", "a"), grid.bring("s3://dev/x", "b"));
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert_eq!(grid.cached(), 1);
    grid.put("x", "two, and longer");
    grid.bring("s3://dev/x", "c").await.unwrap();
    assert_eq!(grid.cached(), 2);
    assert_eq!(fs::read_to_string(grid.directory().join("b")).unwrap(), "one");
    assert_eq!(fs::read_to_string(grid.directory().join("c")).unwrap(), "two, and longer");
}

#[tokio::test]
async fn a_pinned_input_that_was_replaced_is_refused() {
    let grid = Grid::start().await;
    grid.put("x", "one");
    let etag = grid.stage.client().head_object().bucket("dev").key("x").send().await.unwrap().e_tag.unwrap();
    let input = ResolvedInput { source: "s3://dev/x".into(), path: "x".into(), etag: Some(etag) };
    grid.stage.stage_in(&grid.directory(), std::slice::from_ref(&input)).await.unwrap();
    grid.put("x", "two, and longer");
    let failure = grid.stage.stage_in(&grid.directory(), &[input]).await.unwrap_err();
    assert_eq!(failure, StageFailure { detail: "s3://dev/x: the object was replaced since".into(), retryable: false });
}

#[tokio::test]
async fn outputs_appear_when_they_are_published_and_not_before() {
    let grid = Grid::start().await;
    let content = long();
    grid.leave("res/long.bin", &content);
    grid.leave("res/empty.bin", "");
    let manifest = grid.take("res/*.bin", "s3://dev/out/").await.unwrap();
    assert!(!grid.object("out").exists());
    assert_eq!(manifest.entry_count, 2);
    let [empty, whole] = &manifest.entries[..] else { panic!("{manifest:?}") };
    assert_eq!((empty.key.as_str(), empty.size, empty.part_etags.len()), ("out/empty.bin", 0, 1));
    assert_eq!((whole.path.as_str(), whole.size), ("res/long.bin", content.len() as u64));
    assert_eq!((whole.checksum, whole.part_etags.len()), (crc32c::crc32c(&content), 3));

    let etags = grid.stage.publish(&manifest, &labels(1), PREFIX).await.unwrap();
    assert!(fs::read(grid.object("out/long.bin")).unwrap() == content);
    assert_eq!(fs::read(grid.object("out/empty.bin")).unwrap(), b"");
    let head = grid.stage.client().head_object().bucket("dev").key("out/long.bin").send().await.unwrap();
    assert_eq!(head.e_tag.as_ref(), Some(&etags[1]));
    assert_eq!(head.metadata.unwrap(), labels(1).metadata());

    // Another worker takes over what was done already.
    assert_eq!(grid.stage.publish(&manifest, &labels(1), PREFIX).await.unwrap(), etags);
    // What was published can be an input, pinned and checked.
    let input =
        ResolvedInput { source: "s3://dev/out/long.bin".into(), path: "x".into(), etag: Some(etags[1].clone()) };
    grid.stage.stage_in(&grid.directory(), &[input]).await.unwrap();
}

#[tokio::test]
async fn uploads_that_are_gone_are_a_failure_that_another_attempt_may_mend() {
    let grid = Grid::start().await;
    grid.leave("a", "a");
    let manifest = grid.take("a", "s3://dev/out/").await.unwrap();
    let object = ObjectUrl::parse("s3://dev/out/a").unwrap();
    grid.stage.abort(&object, &manifest.entries[0].upload_id).await;
    // Another attempt's object, or anybody's, is not this one's.
    grid.put("out/a", "other");
    let failure = grid.stage.publish(&manifest, &labels(1), PREFIX).await.unwrap_err();
    assert!(failure.retryable && failure.detail.starts_with("s3://dev/out/a: cannot be completed: "), "{failure:?}");
    assert_eq!(fs::read(grid.object("out/a")).unwrap(), b"other");
}

#[tokio::test]
async fn a_long_manifest_travels_by_its_hash() {
    let grid = Grid::start().await;
    for number in 0..60 {
        grid.leave(&format!("res/{number:02}"), format!("{number}"));
    }
    let manifest = grid.take("res/*", "s3://dev/out/").await.unwrap();
    assert_eq!((manifest.entries.len(), manifest.entry_count, manifest.hash.len()), (0, 60, 32));
    assert_eq!(fs::read_dir(grid.object(".grid/manifests")).unwrap().count(), 1);
    let word = grid.stage.publish(&manifest, &labels(1), PREFIX).await.unwrap();
    assert_eq!(fs::read(grid.object("out/59")).unwrap(), b"59");
    // Again, by another worker: the same, so the same word.
    assert_eq!(grid.stage.publish(&manifest, &labels(1), PREFIX).await.unwrap(), word);
    let [word] = &word[..] else { panic!("{word:?}") };
    let hash = |hex: &str| Bytes::copy_from_slice(blake3::Hash::from_hex(hex).unwrap().as_bytes());
    let stored = StoredManifest {
        url: format!("{PREFIX}manifests/{}", blake3::Hash::from_slice(&manifest.hash).unwrap()),
        hash: manifest.hash.clone(),
        etags_url: format!("{PREFIX}manifests/{word}"),
        etags_hash: hash(word),
        ..StoredManifest::default()
    };
    let objects = grid.stage.stored_outputs(&stored).await.unwrap();
    assert_eq!(objects.len(), 60);
    let source = objects[59].url.clone();
    assert_eq!((&*source, &*objects[59].path), ("s3://dev/out/59", "res/59"));
    let pinned = ResolvedInput { source, path: "in".into(), etag: Some(objects[59].etag.clone()) };
    grid.stage.stage_in(&grid.directory(), &[pinned]).await.unwrap();
    fs::write(grid.object(&format!(".grid/manifests/{word}")), "damaged").unwrap();
    let failure = grid.stage.stored_outputs(&stored).await.unwrap_err();
    assert!(failure.detail.contains(word), "{failure}");
}

#[tokio::test]
async fn an_output_that_leads_out_of_the_directory_is_refused() {
    let grid = Grid::start().await;
    write(grid.root.path().join("secret"), "secret");
    symlink("../secret", grid.directory().join("leak")).unwrap();
    let failure = grid.take("leak", "s3://dev/out/").await.unwrap_err();
    assert_eq!(failure, StageFailure { detail: "leak: leads out of the task's directory".into(), retryable: false });
}

#[tokio::test]
async fn an_unknown_bucket_is_not_retried() {
    let grid = Grid::start().await;
    grid.leave("a", "a");
    let failure = grid.take("a", "s3://nowhere/out/").await.unwrap_err();
    assert_eq!(failure, StageFailure { detail: "s3://nowhere/out/a: no such bucket".into(), retryable: false });
}

fn spool(grid: &Grid, name: &str, content: &[u8]) -> (PathBuf, u64) {
    let path = grid.root.path().join(name);
    fs::write(&path, content).unwrap();
    (path, content.len() as u64)
}

#[tokio::test]
async fn small_logs_share_a_bundle_and_large_ones_are_alone() {
    let grid = Grid::start().await;
    let (logs, mut uploaded) = LogUploads::new(grid.stage.clone(), PREFIX.into(), 5);
    let key = |ordinal| AttemptKey { job_id: 1, ordinal, attempt: 2 };
    let none = || spool(&grid, "none", b"");
    assert_eq!(logs.assign(key(0), none(), none()), 0);
    assert_eq!(uploaded.recv().await, Some(key(0)));

    assert_eq!(logs.assign(key(1), spool(&grid, "1", b"one\n"), none()), 1);
    assert_eq!(logs.assign(key(2), none(), spool(&grid, "2", b"two\n")), 1);
    assert_eq!((uploaded.recv().await, uploaded.recv().await), (Some(key(1)), Some(key(2))));
    let bundle = fs::read(grid.object(".grid/logs/5/1")).unwrap();
    assert!(bundle.starts_with(b"one\ntwo\n{\"v\":1,"));

    let large = vec![b'x'; 300 << 10];
    assert_eq!(logs.assign(key(3), spool(&grid, "3", &large), spool(&grid, "4", b"small")), 0);
    assert_eq!(uploaded.recv().await, Some(key(3)));
    assert!(fs::read(grid.object(".grid/logs/5/1.3.2.stdout")).unwrap() == large);
    assert_eq!(fs::read(grid.object(".grid/logs/5/1.3.2.stderr")).unwrap(), b"small");

    // A bundle never has a number that an agent before used in this session.
    let (logs, mut uploaded) = LogUploads::new(grid.stage.clone(), PREFIX.into(), 5);
    let number = logs.assign(key(4), spool(&grid, "5", b"five"), none());
    assert!(number > 1);
    assert_eq!(uploaded.recv().await, Some(key(4)));
    assert!(grid.object(&format!(".grid/logs/5/{number}")).exists());
}

#[tokio::test]
async fn what_a_dead_agent_promised_is_stored_under_the_same_names() {
    let grid = Grid::start().await;
    let key = |ordinal| AttemptKey { job_id: 1, ordinal, attempt: 2 };
    let none = || spool(&grid, "none", b"");
    let large = vec![b'x'; 300 << 10];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dead = {
        let _entered = runtime.enter();
        LogUploads::new(grid.stage.clone(), PREFIX.into(), 5).0
    };
    // It dies before anything of its runs.
    runtime.shutdown_background();
    assert_eq!(dead.assign(key(1), spool(&grid, "1", b"one\n"), none()), 1);
    assert_eq!(dead.assign(key(2), none(), spool(&grid, "2", b"two\n")), 1);
    assert_eq!(dead.assign(key(3), spool(&grid, "3", &large), none()), 0);
    // An escaped process writes on; what was promised is what is stored.
    spool(&grid, "1", b"one\nand more");

    let cache = grid.root.path().join("cache");
    let left = leftovers(&cache);
    assert_eq!(left.len(), 2);
    // The next agent may be in another session.
    let (logs, mut uploaded) = LogUploads::new(grid.stage.clone(), PREFIX.into(), 6);
    logs.resume(left, |key| {
        let name = key.ordinal.to_string();
        let path = |mine: bool| grid.root.path().join(if mine { &*name } else { "none" });
        (path(key.ordinal != 2), path(key.ordinal == 2))
    });
    let mut stored = vec![uploaded.recv().await.unwrap(), uploaded.recv().await.unwrap()];
    stored.push(uploaded.recv().await.unwrap());
    stored.sort_by_key(|key| key.ordinal);
    assert_eq!(stored, [key(1), key(2), key(3)]);
    assert!(fs::read(grid.object(".grid/logs/5/1")).unwrap().starts_with(b"one\ntwo\n{\"v\":1,"));
    assert!(fs::read(grid.object(".grid/logs/5/1.3.2.stdout")).unwrap() == large);
    assert_eq!(leftovers(&cache), []);
}

#[tokio::test]
async fn a_full_bundle_does_not_wait() {
    let grid = Grid::start().await;
    let (logs, mut uploaded) = LogUploads::new(grid.stage.clone(), PREFIX.into(), 5);
    let body = vec![b'x'; 200 << 10];
    let numbers: Vec<u32> = (0..22)
        .map(|ordinal| {
            let key = AttemptKey { job_id: 1, ordinal, attempt: 1 };
            logs.assign(key, spool(&grid, &ordinal.to_string(), &body), spool(&grid, "none", b""))
        })
        .collect();
    assert_eq!(numbers[..21], [1; 21]);
    assert_eq!(numbers[21], 2);
    for _ in 0..22 {
        uploaded.recv().await.unwrap();
    }
    assert!(fs::metadata(grid.object(".grid/logs/5/1")).unwrap().size() > (21 * 200) << 10);
}
