//! `--in SRC:DST` and `--out GLOB=PREFIX`.

use std::path::PathBuf;

use proto::v1;

use super::{Malformed, array, selector::JobRef};

/// Something that a task finds in its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    /// Fetched by the worker.
    Fetched(v1::Input),
    /// A file of the caller's that travels along.
    Local {
        /// Where it is here.
        file: PathBuf,
        /// Where it will be, below the task's directory.
        path: String,
    },
}

/// The value of `--in`: split at the last `:` behind the scheme; without a destination, the base name.
pub fn input(text: &str) -> Result<Staged, Malformed> {
    let scheme = ["s3://", "job:"].into_iter().find(|scheme| text.starts_with(scheme)).unwrap_or("");
    if scheme.is_empty() && text.contains("://") {
        return Err(Malformed::new("sources are `s3://bucket/key`, `job:41/PATH` or a local file"));
    }
    let (source, path) = match text[scheme.len()..].rsplit_once(':') {
        Some((source, path)) => (&text[..scheme.len() + source.len()], path),
        None => (text, ""),
    };
    let rest = &source[scheme.len()..];
    match scheme {
        "s3://" => check_bucket(rest)?,
        "job:" => check_job(rest)?,
        _ if rest.is_empty() => return Err(Malformed::new("the source is missing; write `SOURCE:PATH`")),
        _ => {}
    }
    let base = rest.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let path = if path.is_empty() { base } else { path };
    check_path(path, "the destination")?;
    let path = path.to_owned();
    Ok(match scheme {
        "" => Staged::Local { file: PathBuf::from(source), path },
        _ => Staged::Fetched(v1::Input { source: source.to_owned(), path }),
    })
}

/// The value of `--out`: split at the first `=s3://`.
pub fn output(text: &str) -> Result<v1::Output, Malformed> {
    let malformed = || Malformed::new("not `GLOB=s3://bucket/prefix/`, e.g. `'res/*.bam=s3://lab/out/{job}/'`");
    let at = text.find("=s3://").ok_or_else(malformed)?;
    let (glob, prefix) = (&text[..at], &text[at + 1..]);
    check_path(glob, "the pattern")?;
    globset::Glob::new(glob)
        .map_err(|error| Malformed::new(format!("the pattern `{glob}` can't be used: {}", error.kind())))?;
    if prefix.trim_start_matches("s3://").split('/').next().is_none_or(str::is_empty) {
        return Err(malformed());
    }
    Ok(v1::Output { glob: glob.to_owned(), prefix: prefix.to_owned(), optional: false })
}

/// A path below the task's directory, and nowhere else.
fn check_path(path: &str, what: &str) -> Result<(), Malformed> {
    if path.is_empty() {
        return Err(Malformed::new(format!("{what} is missing; give a path below the task's directory")));
    }
    if path.starts_with('/') {
        return Err(Malformed::new(format!(
            "{what} `{path}` is absolute; give a path relative to the task's directory"
        )));
    }
    if path.split('/').any(|component| component == "..") {
        return Err(Malformed::new(format!("{what} `{path}` has `..`; give a path below the task's directory")));
    }
    if path.contains('\0') {
        return Err(Malformed::new(format!("{what} has a NUL character")));
    }
    Ok(())
}

fn check_bucket(rest: &str) -> Result<(), Malformed> {
    match rest.split_once('/') {
        Some((bucket, _)) if !bucket.is_empty() => Ok(()),
        _ => Err(Malformed::new("not `s3://bucket/key`, or `s3://bucket/prefix/` for all below it")),
    }
}

fn check_job(rest: &str) -> Result<(), Malformed> {
    let malformed = || Malformed::new("not `job:41/PATH` or `job:41.7/PATH`");
    let (task, path) = rest.split_once('/').ok_or_else(malformed)?;
    let (job, index) = task.split_once('.').map_or((task, None), |(job, index)| (job, Some(index)));
    let known = matches!(job.parse(), Ok(JobRef::Id(_)));
    // The index may be the task's own, as a placeholder.
    let index = index.is_none_or(|index| {
        !proto::template::placeholders(index).is_empty()
            || array::index_ranges(index).is_ok_and(|ranges| ranges.len() == 1)
    });
    if !known || !index {
        return Err(malformed());
    }
    check_path(path, "the path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_input(text: &str, expected: Option<(&str, &str)>) {
        let parsed = input(text).ok().map(|staged| match staged {
            Staged::Fetched(input) => (input.source, input.path),
            Staged::Local { file, path } => (file.display().to_string(), path),
        });
        assert_eq!(parsed, expected.map(|(source, path)| (source.to_owned(), path.to_owned())), "{text:?}");
    }

    #[test]
    fn inputs_are_split_at_the_last_colon_behind_the_scheme() {
        check_input("s3://b/in/{index}.fq:reads.fq", Some(("s3://b/in/{index}.fq", "reads.fq")));
        check_input("s3://b/in/x.fq", Some(("s3://b/in/x.fq", "x.fq")));
        check_input("s3://b/a:b/c:d/e", Some(("s3://b/a:b/c", "d/e")));
        check_input("s3://b/dir/", Some(("s3://b/dir/", "dir")));
        check_input("s3://b/dir/:in", Some(("s3://b/dir/", "in")));
        check_input("job:41/res/x.txt", Some(("job:41/res/x.txt", "x.txt")));
        check_input("job:41.7/x.txt:y", Some(("job:41.7/x.txt", "y")));
        check_input("job:41.{index}/x.txt", Some(("job:41.{index}/x.txt", "x.txt")));
        check_input("../data/x.csv", Some(("../data/x.csv", "x.csv")));
        check_input("/data/x.csv:in/y.csv", Some(("/data/x.csv", "in/y.csv")));
        for text in [
            "",
            ":x",
            "s3://",
            "s3://b",
            "s3:///k",
            "s3://b/k:/abs",
            "s3://b/k:../up",
            "s3://b/k:a/../../b",
            "http://x/y",
            "job:/x",
            "job:41",
            "job:x/y",
            "job:41/../x",
            "job:41.x/y",
            "x:..",
            "..",
        ] {
            check_input(text, None);
        }
    }

    #[test]
    fn outputs_are_split_at_the_first_bucket() {
        let parsed = output("res/*.bam=s3://b/out/{job}/{index}/").unwrap();
        assert_eq!((parsed.glob.as_str(), parsed.prefix.as_str()), ("res/*.bam", "s3://b/out/{job}/{index}/"));
        assert_eq!(output("a=b=s3://c/d=s3://e").unwrap().glob, "a=b");
        for text in
            ["", "x", "=s3://b/", "x=s3://", "x=/tmp", "/abs=s3://b/", "../x=s3://b/", "a/../b=s3://b/", "[=s3://b/"]
        {
            assert!(output(text).is_err(), "{text:?}");
        }
    }
}
