//! Rows of a sweep: one line of JSON a task, in blobs that were stored ahead of the submit.

use bytes::Bytes;
use proto::v1::Rows;
use scheduler::State;

/// The chunk that was last read, split into lines: neighbours are granted together.
#[derive(Debug, Default)]
pub(crate) struct RowReader {
    chunk: Option<SplitChunk>,
}

#[derive(Debug)]
struct SplitChunk {
    number: usize,
    data: Bytes,
    /// Offset behind each line.
    ends: Vec<u32>,
}

impl RowReader {
    /// The row of a task, or nothing when its blob is not in the state.
    pub(crate) fn row(&mut self, state: &State, rows: &Rows, ordinal: u32) -> Option<String> {
        let (number, line) = locate(&rows.rows_in_chunk, ordinal)?;
        if self.chunk.as_ref().is_none_or(|chunk| chunk.number != number) {
            let data = state.blob(rows.blob.as_ref()?.chunk_hashes.get(number)?)?;
            let ends = line_ends(&data);
            self.chunk = Some(SplitChunk { number, data, ends });
        }
        let chunk = self.chunk.as_ref()?;
        let start = if line == 0 { 0 } else { *chunk.ends.get(line - 1)? as usize + 1 };
        let end = *chunk.ends.get(line)? as usize;
        String::from_utf8(chunk.data.get(start..end)?.to_vec()).ok()
    }
}

/// Which chunk an ordinal's row is in, and its line there.
fn locate(rows_in_chunk: &[u32], ordinal: u32) -> Option<(usize, usize)> {
    let mut rest = ordinal;
    for (number, rows) in rows_in_chunk.iter().enumerate() {
        if rest < *rows {
            return Some((number, rest as usize));
        }
        rest -= rows;
    }
    None
}

fn line_ends(data: &[u8]) -> Vec<u32> {
    let newlines = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(offset, _)| offset as u32);
    let last = (!data.ends_with(b"\n") && !data.is_empty()).then_some(data.len() as u32);
    newlines.chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_found_in_their_chunks() {
        assert_eq!(locate(&[2, 3], 0), Some((0, 0)));
        assert_eq!(locate(&[2, 3], 4), Some((1, 2)));
        assert_eq!(locate(&[2, 3], 5), None);
        assert_eq!(line_ends(b"\"a\"\n\"\"\n\"c\""), [3, 6, 10]);
        assert_eq!(line_ends(b"\"a\"\n"), [3]);
    }
}
