//! The rows of a sweep: one JSON value a line, in chunks that no row spans.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use proto::{
    ranges::MAX_ARRAY_TASKS,
    v1::{Blob, IndexRange, Rows, TaskArray},
};

use crate::failure::Failure;

/// Largest piece that the grid stores under one hash.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Bytes that are stored before the job is submitted.
#[derive(Debug, Default)]
pub struct Chunks {
    /// In order.
    pub chunks: Vec<Bytes>,
}

impl Chunks {
    /// How a job refers to them.
    pub fn blob(&self) -> Blob {
        Blob {
            chunk_hashes: self
                .chunks
                .iter()
                .map(|chunk| Bytes::copy_from_slice(blake3::hash(chunk).as_bytes()))
                .collect(),
            size: self.chunks.iter().map(|chunk| chunk.len() as u64).sum(),
        }
    }

    /// Any bytes, cut where a chunk is full.
    pub fn of_bytes(content: &Bytes) -> Self {
        let pieces = (0..content.len()).step_by(CHUNK_BYTES);
        Self { chunks: pieces.map(|at| content.slice(at..content.len().min(at + CHUNK_BYTES))).collect() }
    }
}

/// Reads `--each-line`; `-` is stdin.
pub fn each_line(file: &Path) -> Result<(TaskArray, Chunks), Failure> {
    let mut content = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut content).map(|_| ())
    } else {
        fs::read(file).map(|bytes| content = bytes)
    };
    read.map_err(|error| Failure::file("read --each-line", file, &error))?;
    let text = String::from_utf8(content)
        .map_err(|_| Failure::usage("each-line", format!("`{}` is not UTF-8 text", file.display())))?;
    lines(&text)
}

/// A task for each line, empty ones too; the last newline and carriage returns before newlines are dropped.
fn lines(text: &str) -> Result<(TaskArray, Chunks), Failure> {
    let mut chunks = Chunks::default();
    let mut rows_in_chunk = Vec::new();
    let (mut chunk, mut rows, mut total) = (Vec::with_capacity(CHUNK_BYTES), 0u32, 0u64);
    for line in text.lines() {
        let mut row = serde_json::to_vec(line).map_err(|error| Failure::usage("each-line", error))?;
        row.push(b'\n');
        if row.len() > CHUNK_BYTES {
            let message = format!("line {} has more than 256 KiB", total + 1);
            return Err(
                Failure::usage("each-line", message).hint("stage large inputs with `--in`, and give their names")
            );
        }
        if chunk.len() + row.len() > CHUNK_BYTES {
            chunks.chunks.push(Bytes::from(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_BYTES))));
            rows_in_chunk.push(std::mem::take(&mut rows));
        }
        chunk.extend(row);
        rows += 1;
        total += 1;
    }
    if total == 0 {
        return Err(Failure::usage("each-line", "the array is empty: there is no line").hint("give at least one line"));
    }
    if total > MAX_ARRAY_TASKS {
        return Err(Failure::usage("each-line", format!("{total} lines, {MAX_ARRAY_TASKS} at most"))
            .hint("split it into several jobs"));
    }
    chunks.chunks.push(Bytes::from(chunk));
    rows_in_chunk.push(rows);
    let ranges = vec![IndexRange { first: 0, last: total - 1, step: 1 }];
    let rows = Rows { blob: Some(chunks.blob()), rows_in_chunk, placeholders: vec!["line".to_owned()] };
    Ok((TaskArray { ranges, rows: Some(rows) }, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let (array, chunks) = lines(text).unwrap();
        let content: Vec<u8> = chunks.chunks.concat();
        let rows: Vec<String> =
            String::from_utf8(content).unwrap().lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert_eq!(rows, expected);
        assert_eq!(array.ranges, [IndexRange { first: 0, last: expected.len() as u64 - 1, step: 1 }]);
    }

    #[test]
    fn every_line_is_a_row() {
        check("a\nb\n", &["a", "b"]);
        check("a\r\n\r\nb \"q\" {x}", &["a", "", "b \"q\" {x}"]);
        check("\n", &[""]);
        assert!(lines("").unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn a_row_never_spans_chunks() {
        let text = format!("{0}\n{0}\n{0}\nshort\n", "x".repeat(100_000));
        let (array, chunks) = lines(&text).unwrap();
        let rows = array.rows.unwrap();
        assert_eq!(rows.rows_in_chunk, [2, 2]);
        assert!(chunks.chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES && chunk.ends_with(b"\n")));
        assert_eq!(rows.blob.unwrap().chunk_hashes.len(), 2);
        assert!(lines(&"x".repeat(CHUNK_BYTES)).unwrap_err().to_string().contains("line 1 "));
    }

    #[test]
    fn bytes_are_cut_where_a_chunk_is_full() {
        let content = Bytes::from(vec![7u8; CHUNK_BYTES + 1]);
        let chunks = Chunks::of_bytes(&content);
        assert_eq!(chunks.chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [CHUNK_BYTES, 1]);
        assert_eq!(chunks.blob().size, content.len() as u64);
        assert_eq!(Chunks::of_bytes(&Bytes::new()).blob().chunk_hashes.len(), 0);
    }
}
