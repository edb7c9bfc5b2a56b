//! A script that travels along, and its `#MILLGRID --cpus 4` lines.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use clap::{Args, FromArgMatches, builder::Resettable};

use super::options::Options;
use crate::{diagnosis, failure::Failure};

/// What begins a line with options.
const MARK: &str = "#MILLGRID";
/// Lines with options are looked for so far into a script.
const DIRECTIVES_BYTES: usize = 32 << 10;
/// A script above this size doesn't fit an entry of the log.
const MAX_SCRIPT_BYTES: usize = 512 << 10;

/// A script, and what its lines ask for.
#[derive(Debug)]
pub struct Script {
    /// For messages and as the job's name.
    pub name: String,
    /// As it is.
    pub body: Vec<u8>,
    /// From its lines.
    pub options: Options,
}

/// Reads a script; `-` is stdin.
pub fn read(path: &str) -> Result<Script, Failure> {
    let file = Path::new(path);
    let (name, body) = if path == "-" {
        let mut body = Vec::new();
        let read = io::stdin().lock().take(MAX_SCRIPT_BYTES as u64 + 1).read_to_end(&mut body);
        read.map_err(|error| Failure::file("read the script from", Path::new("stdin"), &error))?;
        ("stdin".to_owned(), body)
    } else {
        let body = fs::read(file).map_err(|error| {
            Failure::file("read the script", file, &error)
                .hint(format!("to run a command of the worker's, put `--` in front of it: `-- {path}`"))
        })?;
        (file.file_name().map_or(path.to_owned(), |name| name.to_string_lossy().into_owned()), body)
    };
    if body.is_empty() {
        return Err(Failure::usage("", format!("the script `{name}` is empty")));
    }
    if body.len() > MAX_SCRIPT_BYTES {
        return Err(Failure::usage("", format!("the script `{name}` is larger than 512 KiB"))
            .hint("stage large files with `--in`, or install the program on the workers"));
    }
    if body.iter().take(1024).any(|byte| *byte == 0) {
        return Err(Failure::usage("", format!("`{name}` is a binary, not a script"))
            .hint(format!("to run a program of the worker's, put `--` in front of it: `-- {path}`")));
    }
    let options = parse(&name, &body)?;
    Ok(Script { name, body, options })
}

/// The options of all lines that begin with the mark.
fn parse(name: &str, body: &[u8]) -> Result<Options, Failure> {
    let head = String::from_utf8_lossy(&body[..body.len().min(DIRECTIVES_BYTES)]);
    let mut words = Vec::new();
    for (position, line) in head.lines().enumerate() {
        let Some(rest) = line.strip_prefix(MARK).filter(|rest| rest.starts_with([' ', '\t'])) else { continue };
        let at = |failure: String| Failure::usage("", format!("{name}:{}: {failure}", position + 1));
        let split = shlex::split(rest).ok_or_else(|| at("a quote is not closed".to_owned()))?;
        // Each line by itself first, so that a mistake is told with its line.
        options(&split).map_err(|(message, hint)| at(message).hint(hint))?;
        words.extend(split);
    }
    options(&words).map_err(|(message, hint)| Failure::usage("", format!("{name}: {message}")).hint(hint))
}

fn options(words: &[String]) -> Result<Options, (String, String)> {
    let command = clap::Command::new(MARK).no_binary_name(true).disable_help_flag(true);
    // The environment stands above a script, so that it has no say here.
    let command = Options::augment_args(command).mut_args(|argument| argument.env(Resettable::Reset));
    let matches = command.try_get_matches_from(words).and_then(|matches| Options::from_arg_matches(&matches));
    matches.map_err(|error| diagnosis::of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_options_and_the_command_line_wins() {
        let script = b"#!/bin/sh\n#MILLGRID --cpus 4 --mem 8G\n# --gpus 1\n#MILLGRIDX --gpus 2\n#MILLGRID --label 'a=b c' --env A=1\necho\n";
        let theirs = parse("s", script).unwrap();
        assert_eq!((theirs.cpus, theirs.mem, theirs.gpus), (Some(4000), Some(8192), None));
        assert_eq!(theirs.label, [("a".to_owned(), "b c".to_owned())]);
        let mine = options(&["--cpus".to_owned(), "2".to_owned(), "--env".to_owned(), "A=2".to_owned()]).unwrap();
        let joined = mine.over(theirs);
        assert_eq!((joined.cpus, joined.mem, joined.env.len()), (Some(2000), Some(8192), 1));
    }

    #[test]
    fn lines_may_say_what_a_job_needs() {
        let script = b"#MILLGRID --constraint '!gpu' --retry-on exit_code=75,76,signal --alt cpus=2\n\
            #MILLGRID --constraint zone=a --license solver=2 --mem-growth 1.5\n";
        let theirs = parse("s", script).unwrap();
        let labels: Vec<&str> = theirs.needs.constraint.iter().map(|one| one.label.as_str()).collect();
        assert_eq!((labels, theirs.needs.license.len()), (vec!["gpu", "zone"], 1));
        let mine = options(&["--constraint".to_owned(), "pool=x".to_owned()]).unwrap();
        let joined = mine.over(theirs);
        // A list that is given replaces theirs; what isn't given stays.
        assert_eq!((joined.needs.constraint.len(), joined.needs.alt.len()), (1, 1));
        assert_eq!((joined.retrying.retry_on.len(), joined.retrying.mem_growth.is_some()), (1, true));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let failure = parse("s.sh", b"#!/bin/sh\n#MILLGRID --cpu 4\n").unwrap_err();
        assert!(failure.to_string().starts_with("s.sh:2: "), "{failure}");
        let failure = parse("s.sh", b"#MILLGRID --name 'x\n").unwrap_err();
        assert!(failure.to_string().starts_with("s.sh:1: a quote"), "{failure}");
    }
}
