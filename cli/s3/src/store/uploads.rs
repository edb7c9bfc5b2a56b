use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Condition, Error, Headers, Key, Record, Result, Spool, Store, record::modified_ns};
use crate::digest::{self, Checksums, Digester, Digests};

/// Parts but the last are at least this long, as on S3, so that what runs here runs there.
const MIN_PART_BYTES: u64 = 5 << 20;
/// How long a repeated completion is answered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// An unfinished multipart upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    pub id: String,
    pub bucket: String,
    pub key: String,
    /// Milliseconds since 1970.
    pub initiated_ms: u64,
    pub headers: Headers,
    /// As the caller named them.
    pub checksum_algorithm: Option<String>,
    pub checksum_type: Option<String>,
}

/// A part that was uploaded; its number can be uploaded again until the completion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    pub number: i32,
    pub size: u64,
    pub etag: String,
    pub checksums: Checksums,
    /// Nanoseconds since 1970.
    pub modified_ns: i128,
    /// Name of its file in the upload's folder.
    file: String,
}

/// What a caller says when it completes an upload.
#[derive(Debug, Default)]
pub struct Completion {
    /// Number, ETag and checksums of each part.
    pub parts: Vec<(i32, String, Checksums)>,
    /// Checksums of the whole object; the empty value of an algorithm is not compared.
    pub expected: Checksums,
    pub size: Option<u64>,
    pub condition: Condition,
}

/// The object that an upload became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    bucket: String,
    key: String,
    pub etag: String,
    pub checksums: Checksums,
    pub composite: bool,
}

impl Upload {
    pub fn initiated(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.initiated_ms)
    }
}

impl Part {
    pub fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.modified_ns).unwrap_or(0))
    }
}

impl Store {
    /// Begins an upload; `upload.id` and the time are set here.
    pub fn create_upload(&self, mut upload: Upload) -> Result<String> {
        self.check_bucket(&upload.bucket)?;
        upload.id = random_id()?;
        upload.initiated_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let folder = self.private("uploads").join(&upload.id);
        fs::create_dir(&folder)?;
        self.write_private(&folder.join("upload.json"), &to_json(&upload)?)?;
        Ok(upload.id)
    }

    /// The upload `id`, if it is one of that key.
    pub fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<Upload> {
        let upload: Upload = read_json(&self.upload_folder(id)?.join("upload.json"))?.ok_or(Error::NoSuchUpload)?;
        if upload.bucket == bucket && upload.key == key { Ok(upload) } else { Err(Error::NoSuchUpload) }
    }

    /// Every unfinished upload of a bucket, in the order of keys, then of time.
    pub fn uploads(&self, bucket: &str) -> Result<Vec<Upload>> {
        self.check_bucket(bucket)?;
        let mut uploads = Vec::new();
        for entry in fs::read_dir(self.private("uploads"))? {
            // One that ended since the folder was read is not listed.
            if let Some(upload) = read_json::<Upload>(&entry?.path().join("upload.json"))? {
                uploads.push(upload);
            }
        }
        uploads.retain(|upload| upload.bucket == bucket);
        uploads.sort_by(|one, other| {
            (&one.key, one.initiated_ms, &one.id).cmp(&(&other.key, other.initiated_ms, &other.id))
        });
        Ok(uploads)
    }

    /// Makes a body the part `number`. When this returns, it is on the disk.
    pub fn put_part(
        &self,
        upload: &Upload,
        number: i32,
        spool: Spool,
        verify: impl FnOnce(&Digests) -> Result<()>,
    ) -> Result<Part> {
        let mut spooled = spool.finish()?;
        verify(&spooled.digests)?;
        let folder = self.upload_folder(&upload.id)?;
        let _guard = self.lock_upload(&upload.id);
        self.upload(&upload.bucket, &upload.key, &upload.id)?;
        let stat = rustix::fs::fstat(&spooled.file)?;
        let part = Part {
            number,
            size: stat.st_size as u64,
            etag: digest::hex(&spooled.digests.md5),
            checksums: spooled.digests.checksums.clone(),
            modified_ns: modified_ns(&stat),
            file: format!("{number}.{}", stat.st_ino),
        };
        let record = folder.join(format!("{number}.json"));
        let before: Option<Part> = read_json(&record)?;
        let opened = open_private(&folder)?;
        spooled.rename(&opened, &part.file)?;
        self.write_private(&record, &to_json(&part)?)?;
        rustix::fs::fsync(&opened)?;
        if let Some(before) = before.filter(|before| before.file != part.file) {
            fs::remove_file(folder.join(before.file))?;
        }
        Ok(part)
    }

    /// The parts of an upload, by number.
    pub fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let folder = self.upload_folder(&upload.id)?;
        let mut parts = Vec::new();
        for entry in fs::read_dir(&folder).map_err(gone)? {
            let path = entry?.path();
            let is_part = path.extension().is_some_and(|end| end == "json")
                && path.file_stem().is_some_and(|stem| stem != "upload");
            if is_part && let Some(part) = read_json::<Part>(&path)? {
                parts.push(part);
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Joins the parts to the object. A completion that is repeated, be it after a crash of either side, gets the
    /// first one's answer.
    pub fn complete(self: &Arc<Self>, bucket: &str, key: &Key, id: &str, completion: &Completion) -> Result<Completed> {
        self.check_bucket(bucket)?;
        let folder = self.upload_folder(id)?;
        let _guard = self.lock_upload(id);
        if let Some(completed) = read_json::<Completed>(&self.completed_path(id))? {
            if completed.bucket != bucket || completed.key != key.as_str() {
                return Err(Error::NoSuchUpload);
            }
            // A crash may have come between remembering and forgetting.
            self.forget_upload(&folder)?;
            return Ok(completed);
        }
        let upload = self.upload(bucket, key.as_str(), id)?;
        let record = match self.open_object(bucket, key) {
            // Killed after the rename: the object is there, only the upload isn't forgotten.
            Ok(object) if object.record.upload.as_deref() == Some(id) => object.record,
            _ => self.join(&upload, key, completion)?,
        };
        let completed = Completed {
            bucket: bucket.to_owned(),
            key: key.as_str().to_owned(),
            etag: record.etag,
            checksums: record.checksums,
            composite: record.composite,
        };
        self.write_private(&self.completed_path(id), &to_json(&completed)?)?;
        self.forget_upload(&folder)?;
        Ok(completed)
    }

    /// Ends an upload; nothing of it was ever visible.
    pub fn abort(&self, bucket: &str, key: &str, id: &str) -> Result<()> {
        let folder = self.upload_folder(id)?;
        let _guard = self.lock_upload(id);
        self.upload(bucket, key, id)?;
        self.forget_upload(&folder)
    }

    /// Removes what is remembered of uploads that were completed long ago.
    pub(super) fn forget_old_completions(&self) {
        let Ok(entries) = fs::read_dir(self.private("completed")) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > REMEMBERED) {
                // It is asked for again at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn join(self: &Arc<Self>, upload: &Upload, key: &Key, completion: &Completion) -> Result<Record> {
        let parts = self.chosen_parts(upload, completion)?;
        let full = &completion.expected;
        let composite = upload.checksum_type.as_deref() != Some("FULL_OBJECT");
        // Joining takes a second pass over the bytes only where someone wants a checksum of the whole.
        let wanted =
            |name: &str| !composite && (upload.checksum_algorithm.as_deref() == Some(name) || said(full, name));
        let digested = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"].into_iter().any(wanted);
        let folder = self.upload_folder(&upload.id)?;
        let mut spool = Spool::new(self, Digester::new(wanted))?;
        for part in &parts {
            let mut file = File::open(folder.join(&part.file))?;
            let length = if digested { spool.append_digested(&mut file)? } else { spool.append(&mut file)? };
            if length != part.size {
                return Err(Error::InvalidPart(part.number));
            }
        }
        let spooled = spool.finish()?;
        let stat = rustix::fs::fstat(&spooled.file)?;
        let checksums = if composite { composites(&parts) } else { spooled.digests.checksums.clone() };
        if let Some(algorithm) = checksums.mismatch(&completion.expected) {
            return Err(Error::Digest(algorithm));
        }
        if let Some(said) = completion.size.filter(|said| *said != stat.st_size as u64) {
            return Err(Error::Size { said, actual: stat.st_size as u64 });
        }
        let record = Record {
            etag: joined_etag(&parts),
            headers: upload.headers.clone(),
            composite: composite && !checksums.is_empty(),
            checksums,
            parts: parts.len(),
            upload: Some(upload.id.clone()),
            ..Record::by_hand(&stat)
        };
        self.commit(&upload.bucket, key, spooled, &record, &completion.condition)?;
        Ok(record)
    }

    /// The parts that the caller names, if they are what it takes them for.
    fn chosen_parts(&self, upload: &Upload, completion: &Completion) -> Result<Vec<Part>> {
        if completion.parts.is_empty() {
            return Err(Error::NoParts);
        }
        if !completion.parts.is_sorted_by(|(one, ..), (other, ..)| one < other) {
            return Err(Error::PartOrder);
        }
        let mut present = self.parts(upload)?.into_iter();
        let mut chosen: Vec<Part> = Vec::with_capacity(completion.parts.len());
        for (number, etag, checksums) in &completion.parts {
            let part = present.find(|part| part.number == *number).ok_or(Error::InvalidPart(*number))?;
            if part.etag != *etag || part.checksums.mismatch(checksums).is_some() {
                return Err(Error::InvalidPart(*number));
            }
            if let Some(before) = chosen.last().filter(|before| before.size < MIN_PART_BYTES) {
                return Err(Error::PartTooSmall(before.number));
            }
            chosen.push(part);
        }
        Ok(chosen)
    }

    fn forget_upload(&self, folder: &Path) -> Result<()> {
        match self.remove_private(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The folder of an upload. Callers choose the text, so that it must not be able to be another path.
    fn upload_folder(&self, id: &str) -> Result<PathBuf> {
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { Ok(self.private("uploads").join(id)) } else { Err(Error::NoSuchUpload) }
    }

    fn completed_path(&self, id: &str) -> PathBuf {
        self.private("completed").join(format!("{id}.json"))
    }
}

/// As S3 makes it: the MD5 of the parts' MD5s, and their number.
fn joined_etag(parts: &[Part]) -> String {
    let sums: Vec<u8> = parts.iter().flat_map(|part| digest::unhex(&part.etag).unwrap_or_default()).collect();
    format!("{}-{}", digest::hex(&digest::md5(&sums)), parts.len())
}

fn composites(parts: &[Part]) -> Checksums {
    let sums: Vec<&Checksums> = parts.iter().map(|part| &part.checksums).collect();
    let mut joined = Checksums::default();
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256"] {
        if let Some(slot) = joined.slot(algorithm) {
            *slot = digest::composite(algorithm, &sums);
        }
    }
    joined
}

fn said(checksums: &Checksums, algorithm: &str) -> bool {
    checksums.each().into_iter().any(|(name, value)| name == algorithm && value.is_some())
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(digest::hex(&bytes))
}

fn to_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// `None` when there is no such file. One that a power failure tore is an error: it isn't passed over.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_private(folder: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

fn gone(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoSuchUpload,
        _ => error.into(),
    }
}
