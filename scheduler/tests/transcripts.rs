//! Golden transcripts: every file of `transcripts/` is a scenario that people can read, a line a command, with
//! what the rules made of it behind the arrow. `UPDATE_GOLDEN=1` rewrites them.
//!
//! Each is run twice: as it is, and with the state swapped for decode(encode(state)) after every line.
#![allow(clippy::unwrap_used)]

#[path = "transcripts/line.rs"]
mod line;
#[path = "transcripts/render.rs"]
mod render;
#[path = "transcripts/world.rs"]
mod world;

use std::{env, fs, path::Path};

use world::World;

/// Column at which the arrows stand.
const ARROW: usize = 66;

fn run(text: &str, swapped: bool) -> String {
    let mut world = World::new(swapped);
    let mut out = String::new();
    for line in text.lines() {
        let asked = line.split(" -> ").next().unwrap_or_default().trim_end();
        if asked.is_empty() || asked.starts_with('#') {
            out.push_str(asked);
        } else {
            let (time, command) =
                asked.split_once(' ').unwrap_or_else(|| panic!("a line is a time and a command: {asked}"));
            let command = command.trim();
            let result = world.obey(line::milliseconds(time), command);
            let left = format!("{time:<6}{command}");
            out.push_str(&format!("{left:<ARROW$} -> {result}"));
        }
        out.push('\n');
    }
    out
}

#[test]
fn every_transcript_is_as_it_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "transcripts are missing: {}", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let written = fs::read_to_string(&path).unwrap();
        let found = run(&written, false);
        assert_eq!(found, run(&written, true), "{}: a snapshot changes what happens", path.display());
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &found).unwrap();
        } else if found != written {
            wrong.push(difference(&path.display().to_string(), &written, &found));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites them", wrong.join("\n"));
}

fn difference(name: &str, written: &str, found: &str) -> String {
    let lines = written.lines().zip(found.lines()).filter(|(written, found)| written != found);
    let lines: Vec<String> = lines.map(|(written, found)| format!("  - {written}\n  + {found}")).collect();
    format!("{name}:\n{}", lines.join("\n"))
}
