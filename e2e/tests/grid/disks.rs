//! Disks that fail under a coordinator: it ends, says by its exit code why, and the others go on.

use std::{fs, path::Path, process::Command, time::Duration};

use e2e::{Cluster, Output, Place, until};

use crate::SOON;

/// What ends at once has ended by then.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Replaces the C library's syncs by ones that fail while a file exists.
const FAILING_SYNC: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(void) {
    if (access(getenv("SYNC_FAILS_WHILE"), F_OK) != 0) return 0;
    errno = EIO;
    return 1;
}
int fsync(int file) { return fails() ? -1 : (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { return fails() ? -1 : (int)syscall(SYS_fdatasync, file); }
"#;

/// Bytes of a segment before its first record.
const HEAD: usize = 128;

/// Bytes of a record before its payload.
const RECORD: usize = 32;

fn compile(source: &str, library: &Path) {
    let file = library.with_extension("c");
    fs::write(&file, source).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(&file).status().unwrap();
    assert!(status.success(), "cc: {status}");
}

/// Submits jobs that are held, so that each acknowledgement alone counts.
fn submit(grid: &Cluster, count: usize) -> Vec<u64> {
    let submit = |_| grid.submit(&["--timeout", "20s", "--hold", "--", "true"]);
    (0..count).map(submit).collect()
}

#[track_caller]
fn check_jobs(grid: &Cluster, acknowledged: &[u64]) {
    let listed = grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout;
    let mut ids: Vec<u64> = listed.lines().map(|line| line.parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, acknowledged);
}

/// Waits until the last two of three members have the same digest, which includes that they can be reached.
#[track_caller]
fn check_others(grid: &Cluster, without: &str) {
    until("the other two agree", SOON, || {
        let status = grid.millgrid(["cluster", "status", "-o", "json", "--timeout", "5s"]).ok().json();
        let members = status["members"].as_array().unwrap();
        let digests: Vec<_> = members.iter().filter(|member| member["name"] != *without).collect();
        assert_eq!(digests.len(), 2, "{status}");
        digests[0]["digest"].is_string()
            && (&digests[0]["digest_index"], &digests[0]["digest"])
                == (&digests[1]["digest_index"], &digests[1]["digest"])
    });
}

#[test]
fn a_failed_sync_ends_the_leader_with_70_and_its_disk_is_never_used_again() {
    let mut grid = Cluster::prepare(Place::Loopback);
    let library = grid.file("failing-sync.so");
    compile(FAILING_SYNC, &library);
    let switch = |name: &str| format!("{}-sync-fails", library.display()) + name;
    for name in ["c1", "c2", "c3"] {
        grid.set(name, "LD_PRELOAD", library.display().to_string());
        grid.set(name, "SYNC_FAILS_WHILE", switch(name));
    }
    grid.start();
    let mut acknowledged = submit(&grid, 5);
    let leader = grid.leader();
    fs::write(switch(&leader), "").unwrap();
    acknowledged.extend(submit(&grid, 3));
    assert_eq!(grid.exit_code(&leader, AT_ONCE), 70);
    let log = grid.log(&leader);
    assert!(log.contains("can't sync") && log.contains("Input/output error"), "{log}");
    check_others(&grid, &leader);
    check_jobs(&grid, &acknowledged);

    // The disk seems fine again; what it lost while it wasn't nobody knows.
    fs::remove_file(switch(&leader)).unwrap();
    for _ in 0..2 {
        let before = grid.log(&leader).len();
        grid.start_one(&leader);
        assert_eq!(grid.exit_code(&leader, AT_ONCE), 70);
        let log = grid.log(&leader).split_off(before);
        for part in ["must not be used again", "fsync", "empty directory", &grid.data(&leader).display().to_string()] {
            assert!(log.contains(part), "no `{part}` in\n{log}");
        }
    }
    acknowledged.extend(submit(&grid, 1));
    check_jobs(&grid, &acknowledged);
    check_others(&grid, &leader);
}

#[test]
fn a_byte_that_changed_in_the_log_ends_its_replica_with_71() {
    let mut grid = Cluster::prepare(Place::Loopback);
    grid.start();
    let mut acknowledged = submit(&grid, 20);
    grid.check_replicas();
    let [follower, _] = grid.others(&grid.leader());
    grid.kill(follower);

    let segment = grid.data(follower).join("log/segment-0000000000000001.log");
    let whole = fs::read(&segment).unwrap();
    let (record, end) = record_at(&whole, whole.len() / 2);
    let mut damaged = whole.clone();
    damaged[(record + RECORD + end) / 2] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    for _ in 0..2 {
        let before = grid.log(follower).len();
        grid.start_one(follower);
        assert_eq!(grid.exit_code(follower, AT_ONCE), 71);
        let log = grid.log(follower).split_off(before);
        let place = format!("{} is corrupt at byte {record}", segment.display());
        assert!(log.contains(&place) && log.contains("replace this member"), "no `{place}` in\n{log}");
        assert_eq!(fs::read(&segment).unwrap(), damaged, "it is evidence, and is left alone");
    }
    acknowledged.extend(submit(&grid, 3));
    check_jobs(&grid, &acknowledged);
    check_others(&grid, follower);

    // It was that byte and nothing else.
    fs::write(&segment, &whole).unwrap();
    grid.start_one(follower);
    grid.check_replicas();
    check_jobs(&grid, &acknowledged);
}

#[test]
fn a_full_disk_refuses_new_jobs_and_records_what_ends() {
    let mut grid = Cluster::prepare(Place::Loopback);
    if !grid.limit_disk("c1", 64) {
        return;
    }
    grid.start_with_worker();
    lead(&grid, "c1");
    let reserve = grid.data("c1").join("reserve");
    until("it has a reserve", SOON, || reserve.exists());
    // The next process takes it over.
    grid.kill("c1");
    grid.start_one("c1");
    grid.check_replicas();
    lead(&grid, "c1");
    let held = grid.submit(&["--hold", "--", "true"]).to_string();
    let gate = grid.file("gate");
    let script = format!("until test -e {}; do sleep 0.05; done", gate.display());
    let array = grid.submit(&["--array", "0-1999", "--", "sh", "-c", &script]);
    let first = grid.submit(&["--request-id", "before", "--hold", "--", "true"]);

    let filler = grid.data("c1").join("filler");
    fill(&filler, 64 << 10);
    until("new jobs are refused", SOON, || submitted(&grid).code != 0);
    let data = grid.data("c1").display().to_string();
    submitted(&grid).exits(5).complains(&["almost full", &data, "`c1`", "transfer-leader"]);
    // What is there goes on: thousands of grants and ends need more than was free.
    fs::write(&gate, "").unwrap();
    let job = grid.wait_for_state(array, "succeeded", 4 * SOON);
    assert!(!reserve.exists(), "they did not need the reserve: {job}");
    grid.millgrid(["cancel", &held]).ok();
    submitted(&grid).exits(5);
    assert_eq!(grid.leader(), "c1");
    grid.check_replicas();
    // A member with room takes them at once.
    lead(&grid, "c2");
    let second = grid.submit(&["--", "true"]);
    grid.wait_for_state(second, "succeeded", SOON);

    // Starting again needs no more room than there is.
    grid.kill("c1");
    grid.start_one("c1");
    grid.check_replicas();
    lead(&grid, "c1");
    submitted(&grid).exits(5);
    fs::remove_file(&filler).unwrap();
    until("new jobs are taken again", SOON, || submitted(&grid).code == 0);
    until("it has a reserve again", SOON, || reserve.exists());
    assert_eq!(grid.submit(&["--request-id", "before", "--hold", "--", "true"]), first);
    grid.kill("c1");
    grid.start_one("c1");
    grid.check_replicas();
    let log = grid.log("c1");
    assert!(log.contains("the disk is almost full") && log.contains("there is room on the disk again"), "{log}");
}

/// Moves leadership; it is refused until the member has caught up.
#[track_caller]
fn lead(grid: &Cluster, name: &str) {
    until("leadership moves", SOON, || grid.millgrid(["cluster", "transfer-leader", name]).code == 0);
    assert_eq!(grid.leader(), name);
}

/// What became of a job that was submitted now.
fn submitted(grid: &Cluster) -> Output {
    grid.millgrid(["submit", "--", "true"])
}

/// Takes all but so many bytes of a disk.
fn fill(file: &Path, left: u64) {
    let disk = rustix::fs::statvfs(file.parent().unwrap()).unwrap();
    let size = disk.f_bavail * disk.f_frsize - left;
    let file = fs::File::create(file).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
}

/// Where the record that covers a byte of a segment begins and ends: its length is in its first four bytes, and it is
/// filled up to a multiple of 8.
fn record_at(segment: &[u8], byte: usize) -> (usize, usize) {
    let mut start = HEAD;
    loop {
        let length = u32::from_le_bytes(segment[start..start + 4].try_into().unwrap()) as usize;
        let end = start + RECORD + length.next_multiple_of(8);
        if byte < end {
            return (start, end);
        }
        start = end;
    }
}
