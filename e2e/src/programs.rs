//! The built programs, and calling them from outside of any configuration.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What `dev env` says: how to reach a grid.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads lines `export NAME='value'`, in which `'\''` is a quote.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let parse = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
            Some((name.to_owned(), value.replace("'\\''", "'")))
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        Self(lines.map(|line| parse(line).unwrap_or_else(|| panic!("no `export NAME='value'`: {line}"))).collect())
    }

    /// All of them.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    /// One of them.
    #[track_caller]
    pub fn get(&self, name: &str) -> String {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}` in `dev env`: {self:?}")).clone()
    }
}

/// `millgrid` with this home, working there too, without anything that the caller's environment says about grids;
/// its output is piped.
pub fn bare_millgrid(home: &Path) -> Command {
    let mut command = bare("millgrid");
    command.env("HOME", home).current_dir(home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One of our programs, without anything that the caller's environment says about grids.
pub fn bare(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (name, _) in env::vars_os() {
        if ["MILLGRID_", "XDG_", "AWS_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// It is built into the folder that this program was built into.
fn program(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    // A test program is one folder deeper, in `deps`.
    let folder = own.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let program = folder.join(name);
    assert!(program.exists(), "{} is not built: cargo build --release --locked --bins", program.display());
    program
}
