//! The house rules that a program can check.

mod files;
mod layers;
mod words;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use walkdir::WalkDir;

use crate::workspace::Workspace;

/// One rule, and what breaks it.
pub struct Finding {
    /// The rule as a sentence.
    pub rule: &'static str,
    /// Empty if it holds.
    pub broken: Vec<Broken>,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// A file, with a line if there is one, or a crate.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// A text file of the repository.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Checks every rule.
pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let sources = sources(&workspace.root)?;
    Ok(vec![
        Finding { rule: "every crate imports only what its layer may", broken: layers::check(&workspace.packages) },
        Finding { rule: "pure crates touch no clock, thread, file or socket", broken: words::impure(&sources) },
        Finding { rule: "nothing is left to do later", broken: words::unfinished(&sources) },
        Finding { rule: "no file is longer than it can be read", broken: files::long(&sources) },
        Finding { rule: "the README names the commands", broken: files::readme(&sources) },
        Finding { rule: "lines have no trailing blanks and files end with a newline", broken: files::blanks(&sources) },
    ])
}

/// Everything that people write, which is what the rules are about.
fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let written = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        matches!(extension, "rs" | "md" | "proto" | "toml" | "c" | "sh" | "txt") || name == "run"
    };
    let skipped = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "target" || name == ".git"
    };
    let mut sources = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(|entry| !skipped(entry.path())) {
        let entry = entry.context("can't walk the repository")?;
        if entry.file_type().is_file() && written(entry.path()) {
            sources.push(source(root, entry.path().to_owned())?);
        }
    }
    Ok(sources)
}

fn source(root: &Path, path: PathBuf) -> anyhow::Result<Source> {
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let inside = path.strip_prefix(root).context("a file outside of the repository")?;
    Ok(Source { path: inside.display().to_string(), text })
}
