//! `cargo xtask install`: the three programs in PREFIX/bin.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use crate::{
    process::Interrupt,
    workspace::{BINARIES, Workspace},
};

/// Builds and copies.
pub fn run(workspace: &Workspace, interrupt: &Interrupt, prefix: &Path) -> anyhow::Result<ExitCode> {
    workspace.build_binaries(interrupt)?;
    let folder = expand(prefix)?.join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    for name in BINARIES {
        let to = folder.join(name);
        // A running program can't be written over, but another may take its name.
        let fresh = folder.join(format!(".{name}.new"));
        fs::copy(workspace.program(name), &fresh).with_context(|| format!("can't write {}", fresh.display()))?;
        fs::rename(&fresh, &to).with_context(|| format!("can't replace {}", to.display()))?;
        println!("{}", to.display());
    }
    let on_path = env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|entry| entry == folder));
    if !on_path {
        eprintln!("note: {} is not on the PATH; add it with: export PATH=\"{0}:$PATH\"", folder.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// `~` is the home, since the default has one and no shell sees it.
fn expand(prefix: &Path) -> anyhow::Result<PathBuf> {
    match prefix.strip_prefix("~") {
        Ok(rest) => Ok(PathBuf::from(env::var_os("HOME").context("HOME is not set; use --prefix")?).join(rest)),
        Err(_) => Ok(prefix.to_owned()),
    }
}
