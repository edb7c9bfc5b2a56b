#![allow(clippy::unwrap_used)]

use super::*;

/// Three segments on a disk, the second one of which compresses well.
fn three() -> (tempfile::TempDir, Files, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(&folder.path().join("history"), None).unwrap();
    let data = vec![b"first".to_vec(), vec![7; 100_000], Vec::new()];
    for (number, data) in (1..).zip(&data) {
        files.store(number, data).unwrap();
    }
    (folder, files, data)
}

/// Puts `content` in the place of segment 2.
fn damaged(files: &Files, content: &[u8]) {
    fs::write(files.file(2), content).unwrap();
}

#[track_caller]
fn refused(files: &Files, expected: &Expected, part: &str) {
    for expected in [Some(expected), None] {
        let unreadable = files.read(2, expected).unwrap_err();
        assert!(unreadable.is_damage() && unreadable.to_string().contains(part), "`{part}` isn't in: {unreadable}");
    }
}

#[test]
fn segments_come_back_as_they_were_and_survive_opening_again() {
    let (folder, files, data) = three();
    assert!(fs::metadata(files.file(2)).unwrap().len() < 1_000, "it is compressed");
    drop(files);
    let files = Files::open(&folder.path().join("history"), None).unwrap();
    for (number, data) in (1..).zip(&data) {
        let expected = Expected::of(data);
        assert!(files.has(number, &expected));
        assert_eq!(files.read(number, Some(&expected)).unwrap(), data);
        assert_eq!(files.read(number, None).unwrap(), data);
    }
}

#[test]
fn a_segment_that_is_not_there_is_missing_and_no_damage() {
    let (_folder, files, data) = three();
    let expected = Expected::of(&data[0]);
    assert!(!files.has(4, &expected));
    assert!(!files.read(4, Some(&expected)).unwrap_err().is_damage());
    assert!(!files.read(0, None).unwrap_err().is_damage());
}

#[test]
fn storing_again_takes_the_place_of_what_was_there() {
    let (_folder, files, _) = three();
    damaged(&files, b"nonsense");
    files.store(2, b"right").unwrap();
    assert_eq!(files.read(2, Some(&Expected::of(b"right"))).unwrap(), &b"right"[..]);
}

#[test]
fn what_a_crash_left_unfinished_is_removed_at_the_next_start() {
    let (folder, files, data) = three();
    let unfinished = files.path.join("segment-0000000004.new");
    fs::write(&unfinished, b"half").unwrap();
    drop(files);
    let files = Files::open(&folder.path().join("history"), None).unwrap();
    assert!(!unfinished.exists());
    assert!(!files.has(4, &Expected::of(b"half")));
    assert!(files.has(1, &Expected::of(&data[0])));
}

#[test]
fn an_unfinished_file_in_the_way_is_written_over() {
    let (_folder, files, _) = three();
    fs::write(files.path.join("segment-0000000004.new"), vec![1; 10_000]).unwrap();
    files.store(4, b"fourth").unwrap();
    assert_eq!(files.read(4, None).unwrap(), &b"fourth"[..]);
}

#[test]
fn a_file_torn_at_any_byte_is_damaged() {
    let (_folder, files, data) = three();
    let expected = Expected::of(&data[1]);
    let whole = fs::read(files.file(2)).unwrap();
    for length in 0..whole.len() {
        damaged(&files, &whole[..length]);
        assert!(!files.has(2, &expected), "{length} bytes");
        refused(&files, &expected, "damaged");
    }
    damaged(&files, &[&whole[..], b"more"].concat());
    assert!(!files.has(2, &expected));
    refused(&files, &expected, "its length is wrong");
}

#[test]
fn a_flipped_bit_never_gives_other_bytes() {
    let (_folder, files, _) = three();
    // Random bytes are stored as they are: of what repeats itself, a wrong reference may lead to the right bytes.
    let mut data = vec![0; 4_000];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    files.store(2, &data).unwrap();
    let expected = Expected::of(&data);
    let whole = fs::read(files.file(2)).unwrap();
    let mut unnoticed = 0;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        damaged(&files, &flipped);
        assert_eq!(files.has(2, &expected), at >= Header::BYTES, "byte {at}");
        match files.read(2, Some(&expected)) {
            Ok(read) => {
                assert_eq!(read, data, "byte {at}");
                unnoticed += 1;
            }
            Err(_) => refused(&files, &expected, if at < Header::BYTES { "its header" } else { "its content" }),
        }
    }
    // The last block of the compression has a length of which it reads nothing.
    assert!(unnoticed <= 1, "{unnoticed}");
}

#[test]
fn a_file_under_another_number_is_no_segment() {
    let (_folder, files, data) = three();
    fs::copy(files.file(1), files.file(2)).unwrap();
    assert!(!files.has(2, &Expected::of(&data[0])));
    refused(&files, &Expected::of(&data[0]), "it is another segment");
}

#[test]
fn a_whole_file_with_other_bytes_than_the_state_knows_is_damaged() {
    let (_folder, files, data) = three();
    files.store(2, b"other").unwrap();
    let expected = Expected::of(&data[1]);
    assert!(!files.has(2, &expected));
    let unreadable = files.read(2, Some(&expected)).unwrap_err();
    assert!(unreadable.to_string().contains("not the segment that the state knows"), "{unreadable}");
}

#[test]
fn a_header_that_names_an_absurd_size_allocates_nothing() {
    let (_folder, files, _) = three();
    let is = Expected { bytes: u32::MAX, checksum: [0; 32] };
    damaged(&files, &format::encode_header(2, is, 0));
    refused(&files, &is, "larger than a segment can be");
}

#[test]
fn a_folder_that_can_not_be_written_is_a_failure_that_may_pass() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(&folder.path().join("history"), None).unwrap();
    fs::create_dir(files.path.join("segment-0000000001.new")).unwrap();
    let failure = files.store(1, b"first").unwrap_err();
    assert_eq!(failure.exit_code(), 1, "{failure}");
    fs::remove_dir(files.path.join("segment-0000000001.new")).unwrap();
    files.store(1, b"first").unwrap();
}
