//! Words that must not stand in some sources.

use super::{Broken, Source};

/// Folders of crates that must give the same result for the same input, on every machine, in every run.
const PURE: [Pure; 5] = [
    // Placement may weigh with floats, and people are shown seconds; what the log means may not.
    Pure { folder: "scheduler/src/", files: &[], floats: &["scheduler/src/plan", "scheduler/src/view"] },
    // The log and the snapshot store are the only ones here that know files.
    Pure {
        folder: "replication/src/",
        files: &["replication/src/directory", "replication/src/volume/file"],
        floats: &["replication/src/"],
    },
    Pure { folder: "coordinator/core/src/", files: &[], floats: &["coordinator/core/src/"] },
    Pure { folder: "worker/core/src/", files: &[], floats: &["worker/core/src/"] },
    // Its main prints, and measures how much faster than the world it is.
    Pure { folder: "simulation/src/", files: &["simulation/src/main.rs"], floats: &["simulation/src/"] },
];

struct Pure {
    folder: &'static str,
    /// Beginnings of paths where files, and with them printing and clocks, are allowed.
    files: &'static [&'static str],
    /// Beginnings of paths where floats are allowed.
    floats: &'static [&'static str],
}

/// Each with the reason that the error shows.
const IMPURE: [(&str, &str); 18] = [
    ("Instant", "time comes in with the input"),
    ("SystemTime", "time comes in with the input"),
    ("HashMap", "its order differs from run to run; use BTreeMap"),
    ("HashSet", "its order differs from run to run; use BTreeSet"),
    ("thread_rng", "chance comes in with the input"),
    ("getrandom", "chance comes in with the input"),
    ("std::thread", "threads belong to the surroundings"),
    ("std::fs", "files belong to the surroundings"),
    ("std::net", "sockets belong to the surroundings"),
    ("std::env", "the environment belongs to the surroundings"),
    ("std::process", "processes belong to the surroundings"),
    ("tokio", "runtimes belong to the surroundings"),
    ("tonic", "transport belongs to the surroundings"),
    ("tracing", "events are returned, not logged"),
    ("println!", "events are returned, not printed"),
    ("eprintln!", "events are returned, not printed"),
    ("print!", "events are returned, not printed"),
    ("async fn", "steps are functions"),
];

const FLOATS: [&str; 2] = ["f32", "f64"];

/// What the pure crates use and must not.
pub fn impure(sources: &[Source]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        let Some(pure) = PURE.iter().find(|pure| source.path.starts_with(pure.folder)) else { continue };
        let is_in = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
        for (number, line) in product_lines(&source.text) {
            let mut report = |word: &str, why: &str| {
                let place = format!("{}:{number}", source.path);
                broken.push(Broken { place, problem: format!("`{word}` in a pure crate: {why}") });
            };
            if !is_in(pure.files) {
                for (word, why) in IMPURE.into_iter().filter(|(word, _)| has_word(line, word)) {
                    report(word, why);
                }
            }
            if !is_in(pure.floats) {
                for word in FLOATS.into_iter().filter(|word| has_word(line, word)) {
                    report(word, "the meaning of the log has integers only");
                }
            }
        }
    }
    broken
}

/// Written in two halves, since this file is checked as well.
const KILLED_PROCESS: &str = concat!("#[ig", "nore = \"the process that other tests kill\"]");

/// Words that stand where they do for a reason.
const EXCUSED: [(&str, &str); 1] = [
    // It is the process that the other tests start and kill, and does nothing by itself.
    ("cli/s3/tests/endpoint/main.rs", KILLED_PROCESS),
];

/// Notes to oneself and tests that don't run.
pub fn unfinished(sources: &[Source]) -> Vec<Broken> {
    // Written in two halves, since this file is checked as well.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("#[ig", "nore")];
    let mut broken = Vec::new();
    for source in sources {
        for (index, line) in source.text.lines().enumerate() {
            if EXCUSED.contains(&(source.path.as_str(), line)) {
                continue;
            }
            for word in words.into_iter().filter(|word| has_word(line, word)) {
                let place = format!("{}:{}", source.path, index + 1);
                broken.push(Broken { place, problem: format!("`{word}` is left") });
            }
        }
    }
    broken
}

/// Lines with their numbers, without comments and without the tests at the end of a file.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether the word stands alone there.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let found: Vec<String> = impure(&[source]).into_iter().map(|broken| broken.place).collect();
        assert_eq!(found, expected, "{path}: {text}");
    }

    #[test]
    fn a_pure_crate_that_reads_a_clock_is_found() {
        check("scheduler/src/state.rs", "use std::time::Instant;\n", &["scheduler/src/state.rs:1"]);
        check("worker/core/src/lib.rs", "\nlet m: HashMap<u8, u8>;\n", &["worker/core/src/lib.rs:2"]);
        check("scheduler/src/apply.rs", "fn weight() -> f64 {\n", &["scheduler/src/apply.rs:1"]);
    }

    #[test]
    fn comments_tests_and_other_crates_are_free() {
        check("scheduler/src/state.rs", "// Instant would be wrong here\nfn instantly() {}\n", &[]);
        check("scheduler/src/state.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }\n", &[]);
        check("scheduler/src/plan.rs", "let share: f64 = 0.5;\n", &[]);
        check("client/src/lib.rs", "use std::time::Instant;\n", &[]);
        check("replication/src/volume/file.rs", "use std::fs::File;\n", &[]);
    }

    #[test]
    fn notes_to_oneself_are_found_as_whole_words() {
        let source = |text: &str| vec![Source { path: "a.md".to_owned(), text: text.to_owned() }];
        assert_eq!(unfinished(&source(concat!("x\n// TO", "DO: y\n"))).len(), 1);
        assert_eq!(unfinished(&source(concat!("#[ig", "nore]\n"))).len(), 1);
        assert!(unfinished(&source("XXXL\n")).is_empty());
    }
}
