//! What a failed attempt wrote last.

use std::time::Duration;

use proto::v1::{Explanation, LogStream, ReadLogsRequest, TaskState};
use tokio::time::Instant;

use crate::tail;

/// Lines of both streams together.
const LINES: usize = 20;
/// Of these, what standard output gets in any case.
const LEAST_OF_STDOUT: usize = 5;
/// A log that can't be read by then is left out: the explanation is what was asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last lines of the last attempt that failed: standard output, then standard error. None when it wrote nothing,
/// or when that can't be read now.
pub async fn tail(explanation: &Explanation, grid: &client::Grid) -> Option<String> {
    let failed = explanation.attempts.iter().filter(|one| one.state() == TaskState::Failed);
    // One that never started wrote nothing.
    let last = failed.filter(|one| one.stdout_bytes + one.stderr_bytes > 0).max_by_key(|one| one.number)?;
    let request = ReadLogsRequest {
        job_id: explanation.job_id,
        index: explanation.attempts_index.or(explanation.index).unwrap_or_default(),
        attempt: last.number,
        ..ReadLogsRequest::default()
    };
    let until = Instant::now() + PATIENCE;
    let grid = grid.until(grid.deadline().map_or(until, |deadline| deadline.min(until)));
    let read = async |stream| Some(tail::read(&grid, &request, stream, LINES).await.ok()?.content);
    let (stdout, stderr) = (read(LogStream::Stdout).await?, read(LogStream::Stderr).await?);
    Some(joined(&stdout, &stderr)).filter(|tail| !tail.is_empty())
}

fn joined(stdout: &[u8], stderr: &[u8]) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    let (stdout, stderr): (Vec<&str>, Vec<&str>) = (stdout.lines().collect(), stderr.lines().collect());
    let of_stdout = stdout.len().min(LINES.saturating_sub(stderr.len()).max(LEAST_OF_STDOUT));
    let of_stderr = stderr.len().min(LINES - of_stdout);
    [&stdout[stdout.len() - of_stdout..], &stderr[stderr.len() - of_stderr..]].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_most_of_the_lines_and_output_some() {
        let lines = |name: &str, count: usize| (0..count).map(|at| format!("{name}{at}\n")).collect::<String>();
        let check = |stdout: usize, stderr: usize, expected: (usize, usize)| {
            let tail = joined(lines("o", stdout).as_bytes(), lines("e", stderr).as_bytes());
            let count = |letter| tail.lines().filter(|line| line.starts_with(letter)).count();
            assert_eq!((count('o'), count('e')), expected, "{stdout} and {stderr}");
            let (last_o, last_e) = (stdout.wrapping_sub(1), stderr.wrapping_sub(1));
            assert!(stderr == 0 || tail.ends_with(&format!("e{last_e}")));
            assert!(stdout == 0 || tail.lines().any(|line| line == format!("o{last_o}")));
        };
        check(0, 0, (0, 0));
        check(3, 2, (3, 2));
        check(30, 0, (20, 0));
        check(0, 30, (0, 20));
        check(30, 30, (5, 15));
        check(2, 30, (2, 18));
        check(30, 8, (12, 8));
    }
}
