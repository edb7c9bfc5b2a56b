//! What a command said and how it ended.

use std::{
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wait;

/// No command of a test takes longer; what does is killed.
const LIMIT: Duration = Duration::from_secs(180);

/// A command that ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// As a shell says it: the exit code, or 128 and the signal.
    pub code: i32,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
    /// From its start.
    pub elapsed: Duration,
    command: String,
}

impl Output {
    /// Panics unless the command ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "exit code {}, expected {code}: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.command,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Panics unless stderr contains every one of `words`.
    #[track_caller]
    pub fn complains(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` on stderr: {}\n--- stderr\n{}", self.command, self.stderr);
        }
        self
    }

    /// Stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {}\n--- stdout\n{}\n{}", self.command, self.stdout, self.stderr),
        }
    }

    /// The object below `error` that a failed command with `-o json` leaves on stderr.
    #[track_caller]
    pub fn error(&self) -> Value {
        let line = self.stderr.lines().rfind(|line| line.starts_with('{'));
        let document: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
        let error = document.and_then(|document| document.get("error").cloned());
        error.unwrap_or_else(|| panic!("no error document: {}\n--- stderr\n{}", self.command, self.stderr))
    }

    /// Stdout as one number, as `submit` prints it.
    #[track_caller]
    pub fn id(&self) -> u64 {
        let text = self.stdout.trim();
        text.parse().unwrap_or_else(|_| panic!("no job id but `{text}`: {}\n{}", self.command, self.stderr))
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    command: String,
    start: Instant,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts it; whatever of its output is piped is collected.
    pub fn start(command: &mut Command) -> Self {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let text = format!("millgrid {}", arguments.join(" "));
        let start = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("can't start {text}: {error}"));
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Self { child, command: text, start, stdout, stderr }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn output(mut self) -> Output {
        let (child, command) = (&mut self.child, &self.command);
        let start = self.start;
        let mut status: Option<ExitStatus> = None;
        while status.is_none() && start.elapsed() < LIMIT {
            status = child.try_wait().unwrap();
            if status.is_none() {
                thread::sleep(Duration::from_millis(2));
            }
        }
        let elapsed = start.elapsed();
        if status.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let text =
            |thread: Option<JoinHandle<String>>| thread.map_or_else(String::new, |thread| thread.join().unwrap());
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        let Some(status) = status else { panic!("it runs longer than {LIMIT:?}: {command}\n{stdout}\n{stderr}") };
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        Output { code, stdout, stderr, elapsed, command: self.command.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed meanwhile doesn't leave its command behind. An error means that it ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    /// Waits until it ended by itself.
    #[track_caller]
    pub fn ends_within(&mut self, limit: Duration) {
        let command = self.command.clone();
        wait::until(&format!("the end of {command}"), limit, || !self.is_running());
    }
}
