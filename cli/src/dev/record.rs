use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ports::Ports, process::ProcessId};

/// The names of the coordinators.
pub const COORDINATORS: [&str; 3] = ["c1", "c2", "c3"];
/// The name of the S3 endpoint.
pub const S3: &str = "s3";

/// What a grid is made of, and which processes it has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The bootstrapped members know one another by these, so that they stay.
    pub ports: Ports,
    pub workers: u32,
    pub worker_cpus: u32,
    /// Whether the folder is removed when the grid is stopped.
    pub ephemeral: bool,
    /// It was stopped as a whole, and nothing of it was started since.
    #[serde(default)]
    pub stopped: bool,
    /// The program in the foreground, if the grid was started with one.
    pub foreground: Option<ProcessId>,
    /// Started by us, whether alive or not. Keepers are not here: their workers start them.
    pub processes: BTreeMap<String, ProcessId>,
}

/// What kind of process a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Coordinator,
    Worker,
    Keeper,
    S3,
}

/// A process of the grid, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub kind: Kind,
}

impl Record {
    /// Every process that the grid should have, in the order in which they are shown.
    pub fn members(&self) -> Vec<Member> {
        let member = |name: &str, kind| Member { name: name.to_owned(), kind };
        let mut members: Vec<Member> = COORDINATORS.iter().map(|name| member(name, Kind::Coordinator)).collect();
        for name in self.worker_names() {
            members.push(member(&name, Kind::Worker));
            members.push(member(&format!("{name}-keeper"), Kind::Keeper));
        }
        members.push(member(S3, Kind::S3));
        members
    }

    pub fn worker_names(&self) -> Vec<String> {
        (1..=self.workers).map(|number| format!("worker-{number}")).collect()
    }

    /// URLs of all coordinators.
    pub fn endpoints(&self) -> Vec<String> {
        COORDINATORS.iter().map(|name| format!("https://127.0.0.1:{}", self.ports.grpc(name))).collect()
    }

    pub fn s3_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3())
    }

    /// Whether any process of it lives, the one in the foreground included.
    pub fn is_alive(&self) -> bool {
        self.processes.values().chain(&self.foreground).any(ProcessId::is_alive)
    }
}

/// The worker of a keeper's name.
pub fn worker_of(keeper: &str) -> &str {
    keeper.strip_suffix("-keeper").unwrap_or(keeper)
}
