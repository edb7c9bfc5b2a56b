//! A coordinator's data directory: whose it is, who the first members are, its log and its snapshots.

use std::{collections::BTreeSet, path::Path};

use prost::Message;
use proto::{
    internal::Configuration,
    v1::{BootstrapRequest, Member},
};

use crate::{
    Failure, FileLog, FileVolume, Log, LogSettings, Owner, Recovered, Reserve, SnapshotFiles, Snapshots, Volume,
    recover,
    volume::{failed, read_whole, settle, sync_failed},
};

mod condemned;
#[cfg(test)]
mod tests;

const IDENTITY: &str = "identity";
const BOOTSTRAP: &str = "bootstrap";
const LOG: &str = "log";
const SNAPSHOTS: &str = "snapshots";

/// Who a disk belongs to: drawn once, never used again for another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, not 0.
    pub member_id: u64,
    /// The member's configured name.
    pub name: String,
}

/// A coordinator's data directory, locked while this lives.
///
/// ```text
/// identity    who it is                        written at the first start
/// bootstrap   cluster id and first members     written once; comes after the empty log
/// log/        segments
/// snapshots/  the newest two
/// history/    segments of what has left the state; not this crate's
/// reserve     room that the log gives up when the disk is full
/// sync-failed only after a failed fsync: nothing is started from this directory any more
/// ```
#[derive(Debug)]
pub struct DataDirectory {
    volume: FileVolume,
    identity: Identity,
    bootstrap: Option<BootstrapRequest>,
    reserve: Option<Reserve>,
}

impl DataDirectory {
    /// Opens a directory, or makes it and gives it the identity `(drawn_id, name)`.
    ///
    /// # Errors
    /// [`Failure::IdentityDiffers`] if it has another name, [`Failure::IdentityMissing`] if it has a log but no
    /// identity, [`Failure::InUse`] if another process has it, [`Failure::Condemned`] after [`DataDirectory::condemn`].
    pub fn open(path: &Path, name: &str, drawn_id: u64) -> Result<DataDirectory, Failure> {
        let mut volume = FileVolume::open(path)?;
        if condemned::is_condemned(path) {
            return Err(Failure::Condemned { path: path.to_owned() });
        }
        settle(&mut volume)?;
        let identity = match read_record::<Member>(&volume, IDENTITY)? {
            Some(member) if member.name == name => Identity { member_id: member.id, name: member.name },
            Some(member) => {
                let path = volume.path(IDENTITY);
                return Err(Failure::IdentityDiffers { path, found: member.name, wanted: name.to_owned() });
            }
            None if path.join(LOG).exists() || path.join(BOOTSTRAP).exists() => {
                return Err(Failure::IdentityMissing { path: path.to_owned() });
            }
            None => {
                let identity = Identity { member_id: drawn_id, name: name.to_owned() };
                let member = Member { id: drawn_id, name: name.to_owned(), ..Member::default() };
                write_record(&mut volume, IDENTITY, &member)?;
                identity
            }
        };
        let bootstrap = read_record(&volume, BOOTSTRAP)?;
        Ok(DataDirectory { volume, identity, bootstrap, reserve: None })
    }

    /// Says on the disk that a sync of it failed, for whoever starts this member again. The process that had it open
    /// does this before it ends.
    ///
    /// # Errors
    /// What the disk says; the mark may be there nevertheless.
    pub fn condemn(path: &Path) -> Result<(), Failure> {
        condemned::condemn(path).map_err(failed("mark", path.to_owned()))
    }

    /// The log shall have so many bytes in reserve; they aren't taken before [`Reserve::make`].
    pub fn keep_reserve(&mut self, bytes: u64) {
        self.reserve = Some(Reserve::of(&self.volume.path(""), bytes));
    }

    /// The log's reserve.
    pub fn reserve(&self) -> Option<&Reserve> {
        self.reserve.as_ref()
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster and its first members; absent before bootstrap.
    pub fn bootstrap_record(&self) -> Option<&BootstrapRequest> {
        self.bootstrap.as_ref()
    }

    /// Says who the first members are: makes the empty log, then the record of it, both durable. Only id, name and
    /// addresses of the members count; the same content again changes nothing.
    ///
    /// # Errors
    /// [`Failure::BootstrapInvalid`], naming the field; [`Failure::BootstrapDiffers`] if it was bootstrapped
    /// with another content.
    pub fn bootstrap(&mut self, request: &BootstrapRequest) -> Result<(), Failure> {
        let request = canonical(request);
        validate(&request, &self.identity)?;
        if let Some(existing) = &self.bootstrap {
            if *existing == request {
                return Ok(());
            }
            let cluster_id = existing.cluster_id.clone();
            return Err(Failure::BootstrapDiffers { path: self.volume.path(""), cluster_id });
        }
        let log = FileVolume::open(&self.volume.path(LOG))?;
        Log::create(log, &self.owner(&request), &configuration(&request))?;
        write_record(&mut self.volume, BOOTSTRAP, &request)?;
        self.bootstrap = Some(request);
        Ok(())
    }

    /// Opens log and snapshots and checks them against each other: fsync first, then read.
    ///
    /// # Errors
    /// [`Failure::NotBootstrapped`]; [`Failure::Wiped`] if it was bootstrapped and the log is gone.
    pub fn recover(&self, settings: LogSettings) -> Result<(FileLog, SnapshotFiles, Recovered), Failure> {
        let path = self.volume.path("");
        let Some(bootstrap) = &self.bootstrap else { return Err(Failure::NotBootstrapped { path }) };
        if !path.join(LOG).is_dir() {
            return Err(Failure::Wiped { path });
        }
        let volume = FileVolume::open(&path.join(LOG))?.with_reserve(self.reserve.clone());
        let (log, contents) = Log::open(volume, &self.owner(bootstrap), settings)?;
        let volume = FileVolume::open(&path.join(SNAPSHOTS))?.sparing(self.reserve.clone());
        let mut snapshots = Snapshots::open(volume)?;
        let recovered = recover(contents, &mut snapshots)?;
        Ok((log, snapshots, recovered))
    }

    fn owner(&self, bootstrap: &BootstrapRequest) -> Owner {
        Owner { cluster_id: bootstrap.cluster_id.clone(), member_id: self.identity.member_id }
    }
}

fn configuration(bootstrap: &BootstrapRequest) -> Configuration {
    Configuration { voters: bootstrap.members.iter().map(|member| member.id).collect(), ..Configuration::default() }
}

/// Members by id, without what each says only of itself.
fn canonical(request: &BootstrapRequest) -> BootstrapRequest {
    let mut members: Vec<Member> = request
        .members
        .iter()
        .map(|member| Member { cluster_id: String::new(), version: String::new(), ..member.clone() })
        .collect();
    members.sort_by_key(|member| member.id);
    BootstrapRequest { cluster_id: request.cluster_id.clone(), members }
}

fn validate(request: &BootstrapRequest, identity: &Identity) -> Result<(), Failure> {
    let invalid = |field, reason| Err(Failure::BootstrapInvalid { field, reason });
    if request.cluster_id.is_empty() || request.cluster_id.len() > 64 {
        return invalid("cluster_id", "has to have 1 to 64 bytes");
    }
    let members = &request.members;
    if members.is_empty() || members.len() > 7 {
        return invalid("members", "has to name 1 to 7 members");
    }
    if members.iter().any(|member| member.id == 0) {
        return invalid("members.id", "can't be 0; ask each member for its id first");
    }
    if members.iter().any(|member| member.peer_address.is_empty() || member.address.is_empty()) {
        return invalid("members.peer_address", "and members.address can't be empty");
    }
    let distinct = |key: fn(&Member) -> String| members.iter().map(key).collect::<BTreeSet<_>>().len() == members.len();
    if !distinct(|member| member.id.to_string()) {
        return invalid("members.id", "names a member twice");
    }
    if !distinct(|member| member.name.clone()) || !distinct(|member| member.peer_address.clone()) {
        return invalid("members", "has two members with one name or one peer address");
    }
    if !members.iter().any(|member| member.id == identity.member_id && member.name == identity.name) {
        return invalid("members", "doesn't contain the member that is asked, under its id and name");
    }
    Ok(())
}

fn read_record<M: Message + Default>(volume: &FileVolume, name: &str) -> Result<Option<M>, Failure> {
    if !volume.path(name).exists() {
        return Ok(None);
    }
    let bytes = read_whole(volume, name)?;
    let corrupt = |reason| Failure::Corrupt { path: volume.path(name), offset: 0, reason };
    let (checksum, encoded) = bytes.split_first_chunk::<4>().ok_or(corrupt("it is too short"))?;
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(encoded) {
        return Err(corrupt("it doesn't fit its checksum"));
    }
    M::decode(encoded).map(Some).map_err(|_| corrupt("it can't be read"))
}

/// There is either the whole record or none.
fn write_record<M: Message>(volume: &mut FileVolume, name: &str, message: &M) -> Result<(), Failure> {
    let encoded = message.encode_to_vec();
    let mut bytes = crc32c::crc32c(&encoded).to_le_bytes().to_vec();
    bytes.extend_from_slice(&encoded);
    let unfinished = format!("{name}.new");
    let path = volume.path(&unfinished);
    if path.exists() {
        volume.remove(&unfinished).map_err(failed("remove", path.clone()))?;
    }
    volume.create(&unfinished).map_err(failed("create", path.clone()))?;
    volume.append(&unfinished, &bytes).map_err(failed("write", path.clone()))?;
    volume.sync(&unfinished).map_err(sync_failed(path.clone()))?;
    volume.rename(&unfinished, name).map_err(failed("rename", path))?;
    volume.sync_directory().map_err(sync_failed(volume.path("")))
}
