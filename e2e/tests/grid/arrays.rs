//! Arrays: which indices, what each task is told.

use std::fs;

use e2e::{Grid, Test, whole};

use crate::SOON;

/// The indices of a job that was submitted with these options and held.
fn indices(grid: &Test, options: &[&str]) -> Vec<u64> {
    let id = grid.submit(&[options, &["--hold", "--", "true"]].concat());
    let indices = grid.tasks(id).iter().map(|task| whole(task, "index")).collect();
    grid.millgrid(["cancel", &id.to_string()]).ok();
    indices
}

/// What the tasks of a job printed, in order of their indices.
fn printed(grid: &Test, id: u64) -> Vec<String> {
    let job = grid.wait_for_end(id, SOON);
    assert_eq!(job["state"], "succeeded", "{job}");
    let list = grid.tasks(id);
    let print = |index: u64| grid.millgrid(["logs", &format!("{id}.{index}"), "--stdout"]).ok().stdout;
    list.iter().map(|task| print(whole(task, "index"))).collect()
}

#[test]
fn ranges_are_inclusive_and_may_step_and_be_lists() {
    let grid = Grid::shared();
    assert_eq!(indices(&grid, &["--array", "0-3"]), [0, 1, 2, 3]);
    assert_eq!(indices(&grid, &["--array", "10"]), [10]);
    assert_eq!(indices(&grid, &["--array", "0-10:5"]), [0, 5, 10]);
    assert_eq!(indices(&grid, &["--array", "7,1-2,20-29:4"]).len(), 6);
    let mut list = indices(&grid, &["--array", "7,1-2,20-29:4"]);
    list.sort_unstable();
    assert_eq!(list, [1, 2, 7, 20, 24, 28]);
    assert_eq!(indices(&grid, &["--array", "5-6%1"]), [5, 6]);
}

#[test]
fn each_task_knows_its_index() {
    let grid = Grid::shared();
    let script = "echo {index} $MILLGRID_TASK_INDEX $MILLGRID_JOB_ID {job} $MILLGRID_ATTEMPT {attempt}";
    let id = grid.submit_shell(&["--array", "4-8:2"], script);
    let expected: Vec<String> = [4, 6, 8].iter().map(|index| format!("{index} {index} {id} {id} 1 1\n")).collect();
    assert_eq!(printed(&grid, id), expected);
}

#[test]
fn each_line_of_a_file_is_a_task() {
    let grid = Grid::shared();
    // Empty lines count; a last newline and carriage returns are dropped.
    fs::write(grid.file("lines.txt"), "one\n\nthree four\r\n").unwrap();
    let id = grid.submit(&["--each-line", "lines.txt", "--", "printf", "<%s>", "{index}:{line}"]);
    assert_eq!(printed(&grid, id), ["<0:one>", "<1:>", "<2:three four>"]);
    let arguments = ["submit", "--each-line", "-", "--", "printf", "%s", "{line}"];
    let id = grid.millgrid_with_stdin("a\nb", arguments).ok().id();
    assert_eq!(printed(&grid, id), ["a", "b"]);
}

#[test]
fn a_line_is_no_shell_text() {
    let grid = Grid::shared();
    let line = "$(touch broken); 'quoted' \"x\" * {index} \\";
    fs::write(grid.file("hostile.txt"), line).unwrap();
    let id = grid.submit(&["--each-line", "hostile.txt", "--", "printf", "%s", "{line}"]);
    assert_eq!(printed(&grid, id), [line]);
}

#[test]
fn braces_that_are_no_placeholders_stay() {
    let grid = Grid::shared();
    let text = "{} ${HOME} {{index}} {1} { a } {index}";
    let id = grid.submit(&["--", "printf", "%s", text]);
    assert_eq!(printed(&grid, id), ["{} ${HOME} {index} {1} { a } 0"]);
}

#[test]
fn placeholders_are_filled_in_environment_and_name() {
    let grid = Grid::shared();
    let options = ["--array", "2-3", "--name", "job-{job}", "--env", "PLACE=at-{index}"];
    let id = grid.submit_shell(&options, "echo $PLACE");
    assert_eq!(printed(&grid, id), ["at-2\n", "at-3\n"]);
    assert_eq!(grid.job(id)["name"], format!("job-{id}"));
}

#[test]
fn a_million_queued_tasks_are_one_job() {
    let grid = Grid::shared();
    let id = grid.submit(&["--array", "0-999999", "--hold", "--", "true"]);
    assert_eq!(grid.job(id)["tasks"]["queued"], 1_000_000);
    grid.millgrid(["cancel", &id.to_string()]).ok();
    assert_eq!(grid.job(id)["tasks"]["cancelled"], 1_000_000);
}

#[test]
fn each_of_two_thousand_tasks_runs_once() {
    let grid = Grid::shared();
    let file = grid.file("two-thousand").display().to_string();
    let id = grid.submit_shell(&["--array", "0-1999"], &format!("echo {{index}} >> {file}"));
    let job = grid.wait_for_end(id, 4 * SOON);
    assert_eq!(job["tasks"]["succeeded"], 2000, "{job}");
    let mut ran: Vec<u32> = grid.lines("two-thousand").iter().map(|line| line.parse().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..2000).collect::<Vec<u32>>());
}
