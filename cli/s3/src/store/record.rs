use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::{Key, Store};
use crate::digest::{self, Checksums};

/// What the caller said about an object and gets back with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_disposition: Option<String>,
    pub content_language: Option<String>,
    pub cache_control: Option<String>,
    /// User metadata, names without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

/// What an object is besides its bytes.
///
/// It belongs to one file: that inode, of this size and time of change. A file that was replaced or edited by
/// hand has no record any more, and gets an ETag made of its inode, size and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i128,
    pub etag: String,
    #[serde(default)]
    pub headers: Headers,
    #[serde(default)]
    pub checksums: Checksums,
    /// Whether `checksums` are those of the parts' checksums.
    #[serde(default)]
    pub composite: bool,
    /// 0 unless it was uploaded in parts.
    #[serde(default)]
    pub parts: usize,
    /// The upload that made it, if one did.
    #[serde(default)]
    pub upload: Option<String>,
}

impl Record {
    /// Of a file that was put there by hand, or edited since.
    pub fn by_hand(stat: &Stat) -> Self {
        let mut record = Self {
            inode: stat.st_ino,
            size: stat.st_size as u64,
            modified_ns: modified_ns(stat),
            etag: String::new(),
            headers: Headers::default(),
            checksums: Checksums::default(),
            composite: false,
            parts: 0,
            upload: None,
        };
        let identity = format!("{} {} {}", record.inode, record.size, record.modified_ns);
        // The ending tells clients that it is no MD5 of the content.
        record.etag = format!("{}-1", digest::hex(&digest::md5(identity.as_bytes())));
        record
    }

    /// Whether it is about the file as it is now.
    fn matches(&self, stat: &Stat) -> bool {
        self.inode == stat.st_ino && self.size == stat.st_size as u64 && self.modified_ns == modified_ns(stat)
    }

    pub fn modified(&self) -> SystemTime {
        let nanoseconds = u64::try_from(self.modified_ns).unwrap_or(0);
        UNIX_EPOCH + Duration::from_nanos(nanoseconds)
    }
}

impl Store {
    /// The record of a file, made up when it has none.
    pub(super) fn record(&self, bucket: &str, key: &str, stat: &Stat) -> Record {
        let path = self.private("records").join(bucket).join(record_name(key, stat.st_ino));
        let written = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        written.filter(|record| record.matches(stat)).unwrap_or_else(|| Record::by_hand(stat))
    }

    /// Written before the file gets its name, so that no reader meets the object without it. It is named after
    /// the inode, so that the record of the file in place stays until that is replaced.
    pub(super) fn write_record(&self, bucket: &str, key: &Key, record: &Record) -> std::io::Result<()> {
        let folder = self.private("records").join(bucket);
        std::fs::create_dir_all(&folder)?;
        self.write_private(&folder.join(record_name(key.as_str(), record.inode)), &serde_json::to_vec(record)?)
    }

    pub(super) fn remove_record(&self, bucket: &str, key: &Key, inode: u64) {
        // A record that stays behind is about a file that is gone: it is never read.
        let _ = std::fs::remove_file(self.private("records").join(bucket).join(record_name(key.as_str(), inode)));
    }
}

fn record_name(key: &str, inode: u64) -> String {
    format!("{}.{inode}", digest::name_of(key))
}

pub fn modified_ns(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}
