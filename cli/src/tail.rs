//! The last lines of a log, read from its end.

use proto::v1::{LogStream, ReadLogsRequest};

use crate::{failure::Failure, follow::Printer};

/// First window from the end of a stream, in bytes; it grows until it holds the lines.
const FIRST_WINDOW: i64 = 64 << 10;
/// Larger windows are not read: so many lines are no tail.
const MAX_WINDOW: i64 = 1 << 30;

/// Prints the last lines of each selected stream, and leaves the request behind them.
pub async fn print(
    grid: &client::Grid,
    request: &mut ReadLogsRequest,
    lines: usize,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let selected = request.stream();
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        if selected != LogStream::Unspecified && selected != stream {
            continue;
        }
        let tail = read(grid, request, stream, lines).await?;
        printer.piece(stream, &tail.content, tail.lost_bytes)?;
        let end = tail.end;
        match stream {
            LogStream::Stderr => request.stderr_offset = end,
            _ => request.stdout_offset = end,
        }
    }
    Ok(())
}

/// The last lines of a stream.
pub struct Tail {
    /// Whole lines, but for the last one perhaps.
    pub content: Vec<u8>,
    lost_bytes: u64,
    /// The offset behind them.
    end: i64,
}

/// Reads the last lines of one stream.
pub async fn read(
    grid: &client::Grid,
    request: &ReadLogsRequest,
    stream: LogStream,
    lines: usize,
) -> Result<Tail, Failure> {
    let mut window = FIRST_WINDOW;
    loop {
        let mut request = *request;
        request.set_stream(stream);
        request.follow = false;
        (request.stdout_offset, request.stderr_offset) = (-window, -window);
        let mut logs = grid.jobs().logs(request);
        let (mut start, mut content, mut lost) = (None, Vec::new(), 0);
        while let Some(piece) = logs.next().await? {
            start.get_or_insert(piece.offset);
            content.extend_from_slice(&piece.data);
            lost += piece.lost_bytes;
        }
        let start = start.unwrap_or(0);
        let from = cut(&content, lines);
        let all_there = start == 0 || from > 0 || window >= MAX_WINDOW;
        if all_there {
            let end = start as i64 + content.len() as i64 + lost as i64;
            return Ok(Tail { content: content.split_off(from), lost_bytes: lost, end });
        }
        window *= 8;
    }
}

/// Where the last lines begin; a last line without a newline is one.
fn cut(content: &[u8], lines: usize) -> usize {
    let body = content.strip_suffix(b"\n").unwrap_or(content);
    if lines == 0 {
        return content.len();
    }
    let newlines = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    newlines.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_cut_off() {
        let table: [(&[u8], usize, &[u8]); 7] = [
            (b"a\nb\nc\n", 2, b"b\nc\n"),
            (b"a\nb\nc", 2, b"b\nc"),
            (b"a\nb\n", 5, b"a\nb\n"),
            (b"a\n\n", 1, b"\n"),
            (b"a\n", 0, b""),
            (b"", 3, b""),
            (b"a", 1, b"a"),
        ];
        for (content, lines, expected) in table {
            assert_eq!(&content[cut(content, lines)..], expected);
        }
    }
}
