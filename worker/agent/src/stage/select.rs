//! Which files of a task's directory are outputs, and what their keys are.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use super::{ResolvedOutput, StageFailure, object::ObjectUrl, place};

/// Files that one attempt may leave; more are refused.
const MAX_FILES: usize = 100_000;

/// A file that is to become an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selected {
    /// Relative to the task's directory.
    pub path: String,
    pub object: ObjectUrl,
}

/// Whether it is clear without a walk that there are no outputs, and that this is fine.
pub(super) fn leaves_nothing(directory: &Path, outputs: &[ResolvedOutput]) -> bool {
    let nothing = |output: &ResolvedOutput| {
        let folder = pattern(&output.glob).map(|glob| literal_folder(&glob));
        output.optional && folder.is_some_and(|folder| !folder.is_empty() && !directory.join(folder).exists())
    };
    outputs.iter().all(nothing)
}

/// A glob as it is meant: relative, and of a folder everything in it. None if it leaves the directory.
fn pattern(glob: &str) -> Option<String> {
    let mut pattern = place::parts(glob)?.join("/");
    if glob.ends_with('/') {
        pattern.push_str("/**");
    }
    Some(pattern)
}

/// The folders before the first wildcard, each with its slash.
fn literal_folder(pattern: &str) -> String {
    let folders: Vec<&str> = pattern.split('/').collect();
    let literal = folders[..folders.len() - 1].iter().take_while(|part| !part.contains(['*', '?', '[', '{', '\\']));
    literal.map(|part| format!("{part}/")).collect()
}

/// All outputs, in the order of their definitions and then of their paths.
pub(super) fn select(directory: &Path, outputs: &[ResolvedOutput]) -> Result<Vec<Selected>, StageFailure> {
    let mut all = Vec::new();
    for output in outputs {
        let pattern = Pattern::parse(output)?;
        let found = pattern.matches(directory)?;
        if found.is_empty() && !output.optional {
            return Err(StageFailure::permanent(&output.glob, "no file matches this output"));
        }
        all.extend(found);
    }
    if all.len() > MAX_FILES {
        let what = format!("{} files; at most {MAX_FILES} are allowed", all.len());
        return Err(StageFailure::permanent("outputs", what));
    }
    let mut taken = BTreeMap::new();
    for selected in &all {
        match taken.entry(selected.object.to_string()) {
            Entry::Vacant(free) => _ = free.insert(&selected.path),
            Entry::Occupied(other) => {
                let what = format!("both `{}` and `{}` would be stored there", other.get(), selected.path);
                return Err(StageFailure::permanent(other.key(), what));
            }
        }
    }
    Ok(all)
}

struct Pattern<'a> {
    output: &'a ResolvedOutput,
    prefix: ObjectUrl,
    matcher: GlobMatcher,
    /// Dropped from the key.
    literal: String,
}

impl Pattern<'_> {
    fn parse(output: &ResolvedOutput) -> Result<Pattern<'_>, StageFailure> {
        let refused = |what: String| StageFailure::permanent(&output.glob, what);
        let Some(glob) = pattern(&output.glob) else {
            return Err(refused("an output must be relative and without `..`".into()));
        };
        Ok(Pattern {
            output,
            prefix: ObjectUrl::parse(&output.prefix)?,
            literal: literal_folder(&glob),
            matcher: GlobBuilder::new(&glob)
                .literal_separator(true)
                .build()
                .map_err(|error| refused(error.kind().to_string()))?
                .compile_matcher(),
        })
    }

    fn matches(&self, directory: &Path) -> Result<Vec<Selected>, StageFailure> {
        let root = directory.join(&self.literal);
        if !root.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.map_err(|error| StageFailure::transient(&self.output.glob, error))?;
            let is_file = match entry.file_type() {
                kind if kind.is_symlink() => entry.path().is_file(),
                kind => kind.is_file(),
            };
            let Ok(path) = entry.path().strip_prefix(directory) else { continue };
            if !is_file || !self.matcher.is_match(path) {
                continue;
            }
            let Some(path) = path.to_str() else {
                let what = format!("the name of {} is not UTF-8", path.display());
                return Err(StageFailure::permanent(&self.output.glob, what));
            };
            let below = path.strip_prefix(&self.literal).unwrap_or(path);
            let ObjectUrl { bucket, key } = &self.prefix;
            let object = ObjectUrl { bucket: bucket.clone(), key: format!("{key}{below}") };
            found.push(Selected { path: path.to_owned(), object });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn output(glob: &str, prefix: &str) -> ResolvedOutput {
        ResolvedOutput { glob: glob.into(), prefix: prefix.into(), optional: false }
    }

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in ["a.txt", "b.bam", "res/1.bam", "res/2.bam", "res/deep/3.bam", "res/deep/3.log"] {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        directory
    }

    #[track_caller]
    fn check(glob: &str, expected: &[&str]) {
        let directory = directory();
        let selected = select(directory.path(), &[output(glob, "s3://out/p/")]).unwrap();
        assert_eq!(selected.iter().map(|file| file.object.to_string()).collect::<Vec<_>>(), expected, "{glob}");
    }

    #[test]
    fn the_literal_folder_is_dropped_from_the_key() {
        check("res/*.bam", &["s3://out/p/1.bam", "s3://out/p/2.bam"]);
        check("./res/1.bam", &["s3://out/p/1.bam"]);
        check("*.bam", &["s3://out/p/b.bam"]);
        check("res/deep/3.*", &["s3://out/p/3.bam", "s3://out/p/3.log"]);
    }

    #[test]
    fn only_two_stars_cross_folders() {
        check(
            "**/*.bam",
            &["s3://out/p/b.bam", "s3://out/p/res/1.bam", "s3://out/p/res/2.bam", "s3://out/p/res/deep/3.bam"],
        );
        check("res/**", &["s3://out/p/1.bam", "s3://out/p/2.bam", "s3://out/p/deep/3.bam", "s3://out/p/deep/3.log"]);
        check("res/", &["s3://out/p/1.bam", "s3://out/p/2.bam", "s3://out/p/deep/3.bam", "s3://out/p/deep/3.log"]);
        check("res/{1,deep/3}.bam", &["s3://out/p/1.bam", "s3://out/p/deep/3.bam"]);
    }

    #[test]
    fn a_prefix_is_a_prefix_and_no_folder() {
        let directory = directory();
        let selected = select(directory.path(), &[output("a.txt", "s3://out/x-")]).unwrap();
        assert_eq!(selected[0].object.to_string(), "s3://out/x-a.txt");
    }

    #[track_caller]
    fn refused(outputs: &[ResolvedOutput], expected: &str) {
        let failure = select(directory().path(), outputs).unwrap_err();
        assert_eq!(failure, StageFailure { detail: expected.into(), retryable: false });
    }

    #[test]
    fn an_output_that_matches_nothing_fails_unless_it_is_optional() {
        refused(&[output("*.cram", "s3://o/")], "*.cram: no file matches this output");
        refused(&[output("none/*.cram", "s3://o/")], "none/*.cram: no file matches this output");
        let optional = ResolvedOutput { optional: true, ..output("*.cram", "s3://o/") };
        assert_eq!(select(directory().path(), &[optional]).unwrap(), []);
    }

    #[test]
    fn without_its_folder_an_optional_output_is_not_looked_for() {
        let directory = directory();
        let nothing = |glob: &str, optional| {
            leaves_nothing(directory.path(), &[ResolvedOutput { optional, ..output(glob, "s3://o/") }])
        };
        assert!(nothing("none/*.bam", true) && nothing("none/", true) && nothing("res/none/**", true));
        assert!(!nothing("none/*.bam", false), "its absence is an error");
        assert!(!nothing("res/*.cram", true) && !nothing("*.cram", true) && !nothing("none", true), "a walk decides");
        assert!(!nothing("../*", true), "it is an error");
        assert!(leaves_nothing(directory.path(), &[]));
    }

    #[test]
    fn an_output_stays_in_the_directory() {
        for glob in ["../*", "/etc/*", "a/../../b"] {
            refused(&[output(glob, "s3://o/")], &format!("{glob}: an output must be relative and without `..`"));
        }
    }

    #[test]
    fn two_files_never_become_one_object() {
        let outputs = [
            output("res/*.bam", "s3://o/deep/"),
            output("res/**/3.bam", "s3://o/"),
            output("b.bam", "s3://o/deep/3.bam"),
        ];
        assert_eq!(select(directory().path(), &outputs).unwrap().len(), 4);
        let outputs = [output("res/deep/*.bam", "s3://o/"), output("res/deep/*", "s3://o/")];
        refused(&outputs, "s3://o/3.bam: both `res/deep/3.bam` and `res/deep/3.bam` would be stored there");
    }
}
