//! Inputs from S3, outputs to S3.

use std::fs;

use e2e::{Grid, Test, text, until};

use crate::SOON;

fn succeeds(grid: &Test, id: u64) {
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(text(&job, "state"), "succeeded", "{job} {:?}", grid.tasks(id));
}

fn fails(grid: &Test, id: u64, cause: &str) {
    let job = grid.wait_for_end(id, SOON);
    assert_eq!((text(&job, "state"), text(&job, "cause")), ("failed", cause), "{job}");
}

fn logs(grid: &Test, id: u64) -> String {
    grid.millgrid(["logs", &id.to_string()]).ok().stdout
}

#[test]
fn an_object_is_there_when_the_task_starts() {
    let grid = Grid::shared();
    grid.put("in/words.txt", "one two three\n");
    let id = grid.submit(&["--in", "s3://dev/in/words.txt", "--", "cat", "words.txt"]);
    succeeds(&grid, id);
    assert_eq!(logs(&grid, id), "one two three\n");
    let id = grid.submit(&["--in", "s3://dev/in/words.txt:deep/er/name", "--", "cat", "deep/er/name"]);
    succeeds(&grid, id);
    assert_eq!(logs(&grid, id), "one two three\n");
}

#[test]
fn a_prefix_is_a_folder() {
    let grid = Grid::shared();
    for name in ["a.txt", "b.txt", "below/c.txt"] {
        grid.put(&format!("folder/{name}"), name);
    }
    let id = grid.submit_shell(&["--in", "s3://dev/folder/:got"], "cd got && find . -type f | sort");
    succeeds(&grid, id);
    assert_eq!(logs(&grid, id), "./a.txt\n./b.txt\n./below/c.txt\n");
}

#[test]
fn a_local_file_travels_along() {
    let grid = Grid::shared();
    fs::write(grid.file("local.txt"), "from here").unwrap();
    let id = grid.submit(&["--in", "local.txt:there.txt", "--", "cat", "there.txt"]);
    fs::remove_file(grid.file("local.txt")).unwrap();
    succeeds(&grid, id);
    assert_eq!(logs(&grid, id), "from here");
}

#[test]
fn a_large_object_arrives_whole() {
    let grid = Grid::shared();
    let content: Vec<u8> = (0..40_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    grid.put("in/large.bin", &content);
    let out = "copy.bin=s3://dev/large-out/";
    let id = grid.submit_shell(&["--in", "s3://dev/in/large.bin", "--out", out], "cp large.bin copy.bin");
    succeeds(&grid, id);
    assert!(fs::read(grid.object("large-out/copy.bin")).unwrap() == content, "the content differs");
}

#[test]
fn each_task_of_an_array_stages_its_own() {
    let grid = Grid::shared();
    for index in 0..6 {
        grid.put(&format!("each/{index}.txt"), format!("{}\n", "word ".repeat(index + 1)));
    }
    let out = "count=s3://dev/each-out/{job}/{index}/";
    let options = ["--array", "0-5", "--in", "s3://dev/each/{index}.txt:in.txt", "--out", out];
    let id = grid.submit_shell(&options, "wc -w < in.txt > count");
    succeeds(&grid, id);
    for index in 0..6 {
        let count = grid.get(&format!("each-out/{id}/{index}/count"));
        assert_eq!(count.map(|text| text.trim().to_owned()), Some((index + 1).to_string()));
    }
}

#[test]
fn the_literal_folder_of_a_glob_is_dropped() {
    let grid = Grid::shared();
    let script = "mkdir -p res/deep; echo 1 > res/a.bam; echo 2 > res/b.bam; echo 3 > res/c.txt";
    let id = grid.submit_shell(&["--out", "res/*.bam=s3://dev/globs/{job}/"], script);
    succeeds(&grid, id);
    assert_eq!(grid.get(&format!("globs/{id}/a.bam")).as_deref(), Some("1\n"));
    assert_eq!(grid.get(&format!("globs/{id}/b.bam")).as_deref(), Some("2\n"));
    assert_eq!(fs::read_dir(grid.object(&format!("globs/{id}"))).unwrap().count(), 2);
    let outputs = grid.millgrid(["job", "outputs", &id.to_string()]).ok().stdout;
    assert!(outputs.contains(&format!("globs/{id}/a.bam")) && outputs.contains("b.bam"), "{outputs}");
}

#[test]
fn outputs_of_one_job_are_inputs_of_another() {
    let grid = Grid::shared();
    let options = ["--array", "1-2", "--out", "part-*=s3://dev/parts/{job}/{index}/"];
    let first = grid.submit_shell(&options, "echo {index} > part-{index}");
    let input = format!("job:{first}.2/part-2:two.txt");
    let second = grid.submit(&["--after", &first.to_string(), "--in", &input, "--", "cat", "two.txt"]);
    succeeds(&grid, second);
    assert_eq!(logs(&grid, second), "2\n");
}

#[test]
fn outputs_appear_after_success_and_never_after_failure() {
    let grid = Grid::shared();
    let gate = grid.file("publish").display().to_string();
    let out = "result=s3://dev/visible/{job}/";
    let script = format!("echo done > result; echo ready; until test -e {gate}; do sleep 0.05; done");
    let id = grid.submit_shell(&["--out", out], &script);
    until("the task has written its result", SOON, || logs(&grid, id) == "ready\n");
    assert_eq!(grid.get(&format!("visible/{id}/result")), None);
    fs::write(&gate, "").unwrap();
    succeeds(&grid, id);
    assert_eq!(grid.get(&format!("visible/{id}/result")).as_deref(), Some("done\n"));
    let id = grid.submit_shell(&["--out", out], "echo done > result; exit 1");
    fails(&grid, id, "exit_code");
    assert_eq!(grid.get(&format!("visible/{id}/result")), None);
}

#[test]
fn only_the_outputs_of_the_attempt_that_counted_appear() {
    let grid = Grid::shared();
    let out = "attempt-*=s3://dev/attempts/{job}/";
    let id = grid.submit_shell(&["--retries", "1", "--out", out], "touch attempt-{attempt}; test {attempt} = 2");
    succeeds(&grid, id);
    assert_eq!(grid.get(&format!("attempts/{id}/attempt-1")), None);
    assert!(grid.get(&format!("attempts/{id}/attempt-2")).is_some());
}

#[test]
fn a_missing_input_fails_its_task_and_names_the_key() {
    let grid = Grid::shared();
    let id = grid.submit(&["--in", "s3://dev/in/never-was.txt", "--", "true"]);
    fails(&grid, id, "stage_in");
    let shown = grid.millgrid(["show", &id.to_string()]).ok().stdout;
    let explained = grid.millgrid(["explain", &id.to_string()]).ok().stdout;
    assert!(shown.contains("in/never-was.txt") || explained.contains("in/never-was.txt"), "{shown}\n{explained}");
}

#[test]
fn a_glob_without_a_match_fails_unless_it_is_optional() {
    let grid = Grid::shared();
    let id = grid.submit(&["--out", "*.none=s3://dev/none/", "--", "true"]);
    fails(&grid, id, "stage_out");
    let explained = grid.millgrid(["explain", &id.to_string()]).ok().stdout;
    assert!(explained.contains("*.none"), "{explained}");
    let id = grid.submit(&["--out", "*.none=s3://dev/none/", "--out-optional", "--", "true"]);
    succeeds(&grid, id);
}

#[test]
fn a_link_out_of_the_tasks_folder_is_not_published() {
    let grid = Grid::shared();
    fs::write(grid.file("outside.txt"), "not yours").unwrap();
    let link = format!("ln -s {} linked.txt", grid.file("outside.txt").display());
    let id = grid.submit_shell(&["--out", "linked.txt=s3://dev/linked/"], &link);
    grid.wait_for_end(id, SOON);
    assert_eq!(grid.get("linked/linked.txt"), None);
}

#[test]
fn many_outputs_are_listed_and_taken_as_inputs_like_few() {
    let grid = Grid::shared();
    // So many names that their list is too long for the log.
    let script = "mkdir -p some/folder; for n in $(seq 1 100); do echo $MILLGRID_TASK_INDEX $n > \
                  some/folder/a-file-with-quite-a-long-name-$n; done; echo first > some/file";
    let first = grid.submit_shell(&["--array", "0-1", "--out", "**=s3://dev/many/{index}/"], script);
    succeeds(&grid, first);
    let listed = grid.millgrid(["job", "outputs", &first.to_string(), "-o", "json"]).ok().json();
    let listed = listed.as_array().unwrap().clone();
    assert_eq!(listed.len(), 202, "{listed:?}");
    assert!(listed.is_sorted_by_key(|object| object["index"].as_u64()));
    for object in &listed {
        let key = text(object, "url").strip_prefix("s3://dev/").unwrap();
        assert_eq!(grid.get(key).map(|content| content.len() as u64), object["size"].as_u64(), "{object}");
        assert!(!text(object, "etag").is_empty(), "{object}");
    }
    let (file, folder) = (format!("job:{first}.1/some/file:one"), format!("job:{first}.1/some/folder/:all"));
    let script = "cat one; ls all | wc -l; cat all/a-file-with-quite-a-long-name-77";
    let second = grid.submit_shell(&["--in", &file, "--in", &folder], script);
    succeeds(&grid, second);
    assert_eq!(logs(&grid, second), "first\n100\n1 77\n");
    // What was replaced since is not what the job made.
    grid.put("many/1/some/file", "second, and longer\n");
    let third = grid.submit(&["--in", &file, "--", "cat", "one"]);
    fails(&grid, third, "stage_in");
}
