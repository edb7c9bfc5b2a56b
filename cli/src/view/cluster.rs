//! The coordinators.

use proto::v1;
use serde::Serialize;

use super::{Row, or_dash, text};

/// The cluster's status as JSON has it.
#[derive(Debug, Serialize)]
pub struct Status {
    leader: Option<String>,
    term: u64,
    /// All members.
    pub members: Vec<Member>,
}

/// One coordinator.
#[derive(Debug, Serialize)]
pub struct Member {
    id: u64,
    name: String,
    role: Option<String>,
    address: String,
    reachable: bool,
    term: Option<u64>,
    commit_index: Option<u64>,
    applied_index: Option<u64>,
    digest_index: Option<u64>,
    digest: Option<String>,
    state_digest_index: Option<u64>,
    state_digest: Option<String>,
}

impl From<&v1::ClusterStatus> for Status {
    fn from(status: &v1::ClusterStatus) -> Self {
        let mut members: Vec<Member> = status.members.iter().map(Member::from).collect();
        members.sort_by(|one, other| one.name.cmp(&other.name));
        Self { leader: text(&status.leader), term: status.term, members }
    }
}

impl From<&v1::MemberStatus> for Member {
    fn from(member: &v1::MemberStatus) -> Self {
        // A member that can't be reached says nothing, and zero would be a lie.
        let known = |value: u64| member.reachable.then_some(value);
        let digest = text(&member.digest);
        Self {
            id: member.id,
            name: member.name.clone(),
            role: text(&member.role),
            address: member.address.clone(),
            reachable: member.reachable,
            term: known(member.term),
            commit_index: known(member.commit_index),
            applied_index: known(member.applied_index),
            digest_index: known(member.digest_index),
            digest,
            state_digest_index: known(member.state_digest_index).filter(|index| *index > 0),
            state_digest: text(&member.state_digest),
        }
    }
}

impl Status {
    /// The line above the table.
    pub fn headline(&self) -> String {
        match &self.leader {
            Some(leader) => format!("leader {leader}, term {}", self.term),
            None => format!("no leader, term {}", self.term),
        }
    }
}

impl Row for Member {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["NAME", "ROLE", "ADDRESS", "REACHABLE", "APPLIED", "DIGEST"];
        if wide {
            headers.extend(["ID", "TERM", "COMMITTED", "DIGEST AT"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let digest = self.digest.as_ref();
        let mut cells = vec![
            self.name.clone(),
            or_dash(self.role.as_ref()),
            self.address.clone(),
            if self.reachable { "yes" } else { "no" }.to_owned(),
            or_dash(self.applied_index),
            or_dash(digest.map(|digest| if wide { digest.clone() } else { digest.chars().take(12).collect() })),
        ];
        if wide {
            cells.extend([
                self.id.to_string(),
                or_dash(self.term),
                or_dash(self.commit_index),
                or_dash(self.digest_index),
            ]);
        }
        cells
    }

    fn columns() -> &'static [&'static str] {
        &[
            "id",
            "name",
            "role",
            "address",
            "reachable",
            "term",
            "commit_index",
            "applied_index",
            "digest_index",
            "digest",
            "state_digest_index",
            "state_digest",
        ]
    }

    fn id(&self) -> String {
        self.name.clone()
    }
}
