//! Everything a new process needs, put into the form the system wants before it is made: between its making
//! and its program there is no room for an allocation.

use std::{ffi::CString, os::raw::c_char, ptr};

use bytes::Bytes;

use crate::protocol::{End, Spawn};

/// Where a program without a slash is looked for when the task's environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// A `Spawn` as the system wants it.
pub(crate) struct Prepared {
    /// Tried in this order.
    pub programs: Vec<CString>,
    pub arguments: Strings,
    pub environment: Strings,
    pub directory: CString,
    pub stdout: CString,
    pub stderr: CString,
}

/// A null-terminated array of C strings.
pub(crate) struct Strings {
    /// Points into `owned`, whose heap blocks stay where they are.
    pointers: Vec<*const c_char>,
    owned: Vec<CString>,
}

impl Strings {
    fn new(owned: Vec<CString>) -> Strings {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Strings { pointers, owned }
    }

    /// The first, without its end; empty when there is none.
    pub fn first(&self) -> &[u8] {
        self.owned.first().map_or(b"", |string| string.as_bytes())
    }

    /// The array, null-terminated.
    pub fn pointers(&self) -> &[*const c_char] {
        debug_assert_eq!(self.pointers.len(), self.owned.len() + 1);
        &self.pointers
    }
}

impl Prepared {
    /// Refuses what no system call could express.
    pub fn new(spawn: &Spawn) -> Result<Prepared, (End, String)> {
        let Some(program) = spawn.argv.first().filter(|program| !program.is_empty()) else {
            return Err((End::CommandNotFound, "the command is empty".into()));
        };
        Ok(Prepared {
            programs: programs(program, &spawn.env)?,
            arguments: Strings::new(strings(&spawn.argv, "an argument")?),
            environment: Strings::new(strings(&spawn.env, "an environment variable")?),
            directory: string(spawn.directory.as_bytes(), "the directory")?,
            stdout: string(spawn.stdout_path.as_bytes(), "the path of stdout")?,
            stderr: string(spawn.stderr_path.as_bytes(), "the path of stderr")?,
        })
    }

    /// The program as the user named it.
    pub fn command(&self) -> &[u8] {
        self.arguments.first()
    }
}

/// The files that `program` may be: itself if it has a slash, else one in each directory of the task's PATH.
fn programs(program: &[u8], environment: &[Bytes]) -> Result<Vec<CString>, (End, String)> {
    if program.contains(&b'/') {
        return Ok(vec![string(program, "the command")?]);
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // POSIX: an empty element is the working directory.
            let directory = if directory.is_empty() { b"." } else { directory };
            string(&[directory, b"/", program].concat(), "the command")
        })
        .collect()
}

fn strings(all: &[Bytes], what: &str) -> Result<Vec<CString>, (End, String)> {
    all.iter().map(|bytes| string(bytes, what)).collect()
}

fn string(bytes: &[u8], what: &str) -> Result<CString, (End, String)> {
    CString::new(bytes).map_err(|_| (End::CommandNotExecutable, format!("{what} contains a zero byte")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(program: &str, environment: &[&'static str], expected: &[&str]) {
        let environment: Vec<Bytes> = environment.iter().map(|entry| Bytes::from_static(entry.as_bytes())).collect();
        let found = programs(program.as_bytes(), &environment).unwrap();
        assert_eq!(found.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_program_with_a_slash_is_not_looked_for() {
        check("./run", &["PATH=/a:/b"], &["./run"]);
    }

    #[test]
    fn a_program_is_looked_for_in_the_path_of_the_task() {
        check("run", &["HOME=/", "PATH=/a::/b"], &["/a/run", "./run", "/b/run"]);
        check("run", &[], &["/usr/local/bin/run", "/usr/bin/run", "/bin/run"]);
    }

    #[test]
    fn the_last_of_several_paths_counts() {
        check("run", &["PATH=/a", "PATH=/b"], &["/b/run"]);
    }
}
