//! What an agent knows of its session beside what the keeper holds, and leaves to its successor.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

const FILE: &str = "session.json";

/// Of the session that stands, or stood last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// Its number.
    pub session: u64,
    /// Of the grid.
    pub cluster_id: String,
    /// Bucket and prefix of the grid's own objects; ends in a slash.
    pub grid_prefix: String,
}

impl Grounds {
    /// What the predecessor left; of no session when there is nothing, or nothing legible.
    pub fn read(state_dir: &Path) -> Self {
        let text = fs::read(state_dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Leaves it for a successor.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let new = state_dir.join(format!("{FILE}.new"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, state_dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_successor_reads_what_was_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Grounds::read(folder.path()), Grounds::default());
        let grounds = Grounds { session: 3, cluster_id: "c".into(), grid_prefix: "s3://b/p/".into() };
        grounds.write(folder.path()).unwrap();
        assert_eq!(Grounds::read(folder.path()), grounds);
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(Grounds::read(folder.path()), Grounds::default());
    }
}
