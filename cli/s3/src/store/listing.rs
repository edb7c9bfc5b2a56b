use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType};

use super::{Record, Result, Store, objects::is_file, open_folder};

/// Which keys of a bucket are asked for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys that have it behind the prefix are shown as one common prefix, up to its end.
    pub delimiter: Option<String>,
    /// Only keys above this one.
    pub after: Option<String>,
    /// No key that begins so: a common prefix on the page before.
    pub after_prefix: Option<String>,
    /// At most this many entries.
    pub limit: usize,
}

/// One line of a listing.
#[derive(Debug)]
pub enum Entry {
    Object { key: String, record: Box<Record> },
    Prefix(String),
}

/// A page of a bucket, in the order of the keys' bytes.
#[derive(Debug)]
pub struct Listing {
    pub entries: Vec<Entry>,
    /// Whether more follows.
    pub truncated: bool,
}

impl Entry {
    pub fn text(&self) -> &str {
        match self {
            Self::Object { key, .. } => key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

impl Store {
    pub fn list(&self, bucket: &str, query: &Query) -> Result<Listing> {
        let mut walk = Walk::new(self.bucket(bucket)?, query)?;
        let mut entries = Vec::new();
        while let Some(found) = walk.next()? {
            let Found { key, folder, name } = found;
            if entries.len() == query.limit {
                return Ok(Listing { entries, truncated: query.limit > 0 });
            }
            let common = query.delimiter.as_deref().and_then(|delimiter| common_prefix(&key, &query.prefix, delimiter));
            if let Some(prefix) = common {
                walk.skip = Some(prefix.to_owned());
                entries.push(Entry::Prefix(prefix.to_owned()));
                continue;
            }
            // One that vanished since its folder was read is not there.
            let Ok(stat) = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if is_file(&stat) {
                let record = Box::new(self.record(bucket, &key, &stat));
                entries.push(Entry::Object { key, record });
            }
        }
        Ok(Listing { entries, truncated: false })
    }
}

/// The part of `key` up to the first delimiter behind `prefix`.
fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key.get(prefix.len()..)?.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// A walk through a bucket's files in the order of their keys, which enters no folder that can't matter.
struct Walk<'a> {
    query: &'a Query,
    stack: Vec<Level>,
    /// Keys that begin so have been shown as a common prefix.
    skip: Option<String>,
}

struct Level {
    folder: std::sync::Arc<OwnedFd>,
    /// Key of the folder with a `/` behind, empty for the bucket.
    path: String,
    /// Names, those of folders with a `/` behind, the next one last: `a.b` comes before `a/b`.
    names: Vec<String>,
}

struct Found {
    key: String,
    folder: std::sync::Arc<OwnedFd>,
    name: String,
}

impl<'a> Walk<'a> {
    fn new(bucket: OwnedFd, query: &'a Query) -> Result<Self> {
        let top = Level { names: names(&bucket)?, folder: bucket.into(), path: String::new() };
        Ok(Self { query, stack: vec![top], skip: query.after_prefix.clone() })
    }

    fn next(&mut self) -> Result<Option<Found>> {
        while let Some(level) = self.stack.last_mut() {
            let Some(name) = level.names.pop() else {
                self.stack.pop();
                continue;
            };
            let path = format!("{}{name}", level.path);
            let folder = level.folder.clone();
            match name.strip_suffix('/') {
                None if self.wants_key(&path) => return Ok(Some(Found { key: path, folder, name })),
                Some(inner) if self.may_hold(&path) => {
                    use rustix::io::Errno;
                    match open_folder(&folder, inner) {
                        Ok(opened) => {
                            let names = names(&opened)?;
                            self.stack.push(Level { names, folder: opened.into(), path });
                        }
                        // Gone, or replaced, since its name was read.
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn wants_key(&self, key: &str) -> bool {
        key.starts_with(&self.query.prefix)
            && self.query.after.as_deref().is_none_or(|after| key > after)
            && self.skip.as_deref().is_none_or(|skip| !key.starts_with(skip))
    }

    /// Whether a key that begins with `path` may be wanted.
    fn may_hold(&self, path: &str) -> bool {
        let prefix = self.query.prefix.as_str();
        (path.starts_with(prefix) || prefix.starts_with(path))
            && self.query.after.as_deref().is_none_or(|after| path > after || after.starts_with(path))
            && self.skip.as_deref().is_none_or(|skip| !path.starts_with(skip))
    }
}

/// The names of files and folders in a folder, the first one last. What is no text is no key.
fn names(folder: &OwnedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(_) => continue,
            },
            kind => kind,
        };
        match kind {
            FileType::RegularFile => names.push(name.to_owned()),
            FileType::Directory => names.push(format!("{name}/")),
            _ => {}
        }
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}
