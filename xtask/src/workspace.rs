//! The repository: where it is, what it is made of, how cargo is called in it.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::{self, Interrupt};

/// The programs that make up the product.
pub const BINARIES: [&str; 3] = ["millgrid", "millgrid-coordinator", "millgrid-worker"];

/// The repository this program was built from.
pub struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo builds to.
    pub target: PathBuf,
    /// Every member, by name.
    pub packages: Vec<Package>,
}

/// One member crate.
#[derive(Debug, Clone)]
pub struct Package {
    /// As in its `Cargo.toml`.
    pub name: String,
    /// What it depends on directly.
    pub dependencies: Vec<Dependency>,
    /// Whether it has a program of its own name.
    pub has_program: bool,
}

/// A direct dependency.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Whether it sits behind a feature.
    pub optional: bool,
    /// The features asked for.
    pub features: Vec<String>,
}

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the crate itself.
    Normal,
    /// Of its tests.
    Dev,
    /// Of its build script.
    Build,
}

impl Workspace {
    /// Reads the repository's metadata.
    pub fn open() -> anyhow::Result<Self> {
        // Cargo says where the sources are now; what was compiled in is where they were.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        let root = manifest.parent().context("xtask has no folder above it")?.to_owned();
        let output = cargo_in(&root)
            .args(["metadata", "--no-deps", "--locked", "--format-version", "1"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("can't run cargo")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed");
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).context("`cargo metadata` is no JSON")?;
        let target = metadata["target_directory"].as_str().context("`cargo metadata` names no target folder")?.into();
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Self { root, target, packages: packages.iter().map(package).collect() })
    }

    /// Cargo at the root, without what an outer cargo put into the environment: build scripts that watch those
    /// variables would run again.
    pub fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = cargo_in(&self.root);
        command.args(arguments);
        command
    }

    /// Where a built program is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// Builds all programs; cargo's own progress is shown.
    pub fn build_binaries(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        // The same selection as in `test`: another one would have other features, and compile everything again.
        let mut build = self.cargo(["build", "--release", "--workspace", "--locked", "--bins"]);
        if !process::run(&mut build, interrupt)? {
            bail!("the build failed");
        }
        Ok(())
    }

    /// Whether a member has a program of its own name.
    pub fn has_program(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package.name == name && package.has_program)
    }
}

fn cargo_in(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = text(&value["name"]);
    let is_program = |target: &Value| list(&target["kind"]).contains(&"bin".into());
    let has_program = list(&value["targets"]).iter().any(|target| is_program(target) && target["name"] == *name);
    let dependencies = list(&value["dependencies"])
        .iter()
        .map(|dependency| Dependency {
            name: text(&dependency["name"]),
            kind: match dependency["kind"].as_str() {
                Some("dev") => Kind::Dev,
                Some("build") => Kind::Build,
                _ => Kind::Normal,
            },
            optional: dependency["optional"] == true,
            features: list(&dependency["features"]).iter().map(text).collect(),
        })
        .collect();
    Package { name, dependencies, has_program }
}
