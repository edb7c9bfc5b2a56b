//! `millgrid cp`

use std::path::{Path, PathBuf};

use crate::{
    failure::Failure,
    s3::{Location, Store},
    scope::Scope,
};

/// Arguments of cp.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid cp reads.fq s3://lab/in/
  millgrid cp s3://lab/out/42/result.bam .
  millgrid cp s3://lab/out/42/ results/     # everything below a prefix
  millgrid cp -r inputs/ s3://lab/in/")]
pub struct Args {
    /// A file, a folder with -r, s3://bucket/key or s3://bucket/prefix/
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to; with a `/` at its end, or a folder: under the same name
    #[arg(value_name = "TO")]
    to: String,
    /// Folders and prefixes with all that is below
    #[arg(short, long)]
    recursive: bool,
}

/// Copies between this machine and S3.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    match (Location::parse(&args.from)?, Location::parse(&args.to)?) {
        (None, Some(to)) => upload(Path::new(&args.from), to, args.recursive, scope).await,
        (Some(from), None) => download(from, Path::new(&args.to), args.recursive, scope).await,
        (Some(_), Some(_)) => {
            Err(Failure::usage("", "both sides are on S3").hint("one side is a file or a folder here"))
        }
        (None, None) => Err(Failure::usage("", "neither side is on S3").hint("one side is `s3://bucket/key`")),
    }
}

async fn upload(from: &Path, to: Location, recursive: bool, scope: &Scope) -> Result<u8, Failure> {
    let metadata = std::fs::metadata(from).map_err(|error| Failure::file("read", from, &error))?;
    let store = Store::connect(scope.config.dev).await;
    if !metadata.is_dir() {
        let name = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let to = if to.is_prefix() { to.join(&name) } else { to };
        store.put(from, &to).await?;
        scope.note(&format!("{} -> {to}", from.display()));
        return Ok(0);
    }
    if !recursive {
        return Err(
            Failure::usage("", format!("`{}` is a folder", from.display())).hint("give `-r` for all that is below")
        );
    }
    let mut files = Vec::new();
    list(from, &mut files)?;
    for file in &files {
        let below = file.strip_prefix(from).unwrap_or(file);
        let to = to.join(&below.to_string_lossy());
        store.put(file, &to).await?;
    }
    scope.note(&format!("{} files -> {to}", files.len()));
    Ok(0)
}

async fn download(from: Location, to: &Path, recursive: bool, scope: &Scope) -> Result<u8, Failure> {
    let store = Store::connect(scope.config.dev).await;
    if !from.is_prefix() && !recursive {
        let name = from.key.rsplit('/').next().unwrap_or_default();
        let folder = to.is_dir() || to.as_os_str().to_string_lossy().ends_with('/');
        let file = if folder { to.join(name) } else { to.to_owned() };
        store.get(&from, &file).await?;
        scope.note(&format!("{from} -> {}", file.display()));
        return Ok(0);
    }
    let from = if from.is_prefix() { from } else { Location { key: format!("{}/", from.key), ..from } };
    let objects = store.list(&from).await?;
    if objects.is_empty() {
        return Err(Failure::not_found(format!("there is nothing below {from}")));
    }
    for object in &objects {
        let below = object.key.strip_prefix(&from.key).unwrap_or(&object.key);
        // A key may hold anything; on this machine it must stay below the folder that was asked for.
        if below.is_empty() || below.ends_with('/') {
            continue;
        }
        if below.starts_with('/') || below.split('/').any(|component| component == "..") {
            return Err(Failure::local(format!("the key `{}` would leave the folder", object.key)));
        }
        store.get(object, &to.join(below)).await?;
    }
    scope.note(&format!("{} objects -> {}", objects.len(), to.display()));
    Ok(0)
}

/// All files below a folder, in order; links are followed as the system does.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error: &std::io::Error| Failure::file("read", folder, error);
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(&error))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
