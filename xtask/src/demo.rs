//! `cargo xtask demo`: a replicated grid does a real job, and loses its leader in the middle.
//!
//! Everything goes through the `millgrid` binary, as a user would do it. The result is checked against a count
//! made here.

mod grid;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use walkdir::WalkDir;

use self::{grid::Grid, words::Counts};
use crate::{
    process::Interrupt,
    workspace::{BINARIES, Workspace},
};

/// Each task also waits this long: counting alone would be over before its leader could be killed.
const PRETEND_WORK: &str = "0.3";
/// More files than this would make the demonstration long, not better.
const MOST_FILES: usize = 100;
/// Larger files are no text that somebody wrote.
const MOST_BYTES: u64 = 1 << 20;
/// Words of the table that are shown.
const SHOWN: usize = 10;
/// No step of the demonstration takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counts the words of one staged file, whatever its name was.
const COUNT: &str = "sleep PRETEND; LC_ALL=C tr -cs 'A-Za-z' '\\n' < input.txt | LC_ALL=C tr 'A-Z' 'a-z' \
                     | sed '/^$/d' | LC_ALL=C sort | uniq -c > counts.txt";
/// Adds up what the tasks counted.
const MERGE: &str = "cat counts/*/counts.txt | awk '{ n[$2] += $1 } END { for (word in n) print n[word], word }' \
                     | LC_ALL=C sort -k1,1nr -k2,2 > table.txt";

/// What to count.
#[derive(clap::Args)]
pub struct Options {
    /// A folder of text files [default: the project's own documentation and some of its sources]
    folder: Option<PathBuf>,
}

/// A text file and its name on S3.
struct Input {
    path: PathBuf,
    name: String,
}

/// Runs it.
pub fn run(workspace: &Workspace, interrupt: &Interrupt, options: &Options) -> anyhow::Result<ExitCode> {
    let inputs = inputs(&workspace.root, options.folder.as_deref())?;
    let mut expected = Counts::default();
    for input in &inputs {
        expected.add(&fs::read(&input.path).with_context(|| format!("can't read {}", input.path.display()))?);
    }
    say("build", &format!("{} (the first time takes some minutes)", BINARIES.join(", ")));
    workspace.build_binaries(interrupt)?;
    let begun = Instant::now();
    let grid = Grid::start(workspace.program("millgrid"), interrupt)?;
    let old_leader = grid.leader()?;
    say("start", &format!("3 coordinators (leader: {old_leader}), 2 workers, S3, in {}", seconds(begun.elapsed())));
    let outcome = show(&grid, &inputs, &expected, &old_leader);
    // On an error the logs go with the grid: what they say last is shown first.
    if outcome.is_err() {
        grid.show_logs();
    }
    let left = grid.down();
    outcome?;
    let left = left?;
    ensure!(left.is_empty(), "these processes were left behind: {left:#?}");
    say("stop", &format!("every process is gone; {} in all", seconds(begun.elapsed())));
    Ok(ExitCode::SUCCESS)
}

fn show(grid: &Grid, inputs: &[Input], expected: &Counts, old_leader: &str) -> anyhow::Result<()> {
    for input in inputs {
        grid.millgrid(&["cp", &input.path.to_string_lossy(), &format!("s3://dev/demo/in/{}", input.name)])?;
    }
    say("put", &format!("{} files on s3://dev/demo/in/", inputs.len()));

    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let list = grid.folder().join("files.txt");
    fs::write(&list, names.join("\n")).with_context(|| format!("can't write {}", list.display()))?;
    let count = COUNT.replace("PRETEND", PRETEND_WORK);
    let begun = Instant::now();
    let counting = grid.submit(&[
        &["--name", "count", "--each-line", &list.to_string_lossy(), "--cpus", "0.5"],
        &["--in", "s3://dev/demo/in/{line}:input.txt", "--out", "counts.txt=s3://dev/demo/out/{job}/{index}/"],
        &["--", "sh", "-c", &count],
    ])?;
    say("submit", &format!("job {counting}: {} tasks, each counts the words of one file", inputs.len()));

    let done = grid.wait_for_progress(&counting, inputs.len() as u64 / 4, PATIENCE)?;
    grid.dev(&["kill", "leader"])?;
    let killed = Instant::now();
    say("kill", &format!("{old_leader}, the leader, after {done} of {} tasks", inputs.len()));
    let results = format!("s3://dev/demo/out/{counting}/");
    let merging = grid.submit(&[
        &["--name", "merge", "--after", &counting],
        &["--in", &format!("{results}:counts"), "--out", "table.txt=s3://dev/demo/merged/"],
        &["--", "sh", "-c", MERGE],
    ])?;
    let waited = killed.elapsed();
    let new_leader = grid.leader()?;
    ensure!(new_leader != old_leader, "{old_leader} was killed and leads");
    say(
        "submit",
        &format!("job {merging}: it merges them; accepted {} after the kill, by {new_leader}", seconds(waited)),
    );
    grid.millgrid(&["wait", &counting, &merging])?;
    let worked = begun.elapsed();

    let table = grid.folder().join("table.txt");
    grid.millgrid(&["cp", "s3://dev/demo/merged/table.txt", &table.to_string_lossy()])?;
    let text = fs::read_to_string(&table).with_context(|| format!("can't read {}", table.display()))?;
    let found = Counts::parse(&text)?;
    if let Some(difference) = found.difference(expected) {
        bail!("the grid counted something else than was counted here: {difference}");
    }
    println!("\n   {:>7}  word", "count");
    for line in text.lines().take(SHOWN) {
        let (count, word) = line.split_once(' ').context("a line of the table has no count")?;
        println!("   {count:>7}  {word}");
    }
    println!(
        "   {:>7}  words in all, {} different; the same as counted without a grid\n",
        found.total(),
        found.different()
    );

    let (tasks, attempts) = grid.attempts(&[&counting, &merging])?;
    ensure!(tasks == inputs.len() as u64 + 1, "{} files were counted by {tasks} tasks", inputs.len());
    println!("   2 jobs, {tasks} tasks, {attempts} attempts in {}", seconds(worked));
    println!("   leader {old_leader}, then {new_leader}; the next write was acknowledged after {}\n", seconds(waited));
    Ok(())
}

/// The files to count, by name.
fn inputs(root: &Path, folder: Option<&Path>) -> anyhow::Result<Vec<Input>> {
    let (base, places) = match folder {
        Some(folder) => (folder.to_owned(), vec![folder.to_owned()]),
        None => {
            let top = WalkDir::new(root).max_depth(1).into_iter().flatten().map(walkdir::DirEntry::into_path);
            let mut places: Vec<PathBuf> =
                top.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
            places.extend([root.join("docs"), root.join("scheduler/src")]);
            (root.to_owned(), places)
        }
    };
    let mut inputs = Vec::new();
    for entry in places.iter().flat_map(|place| WalkDir::new(place).sort_by_file_name()) {
        let entry = entry.context("can't walk the folder")?;
        let small = entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MOST_BYTES);
        let path = entry.into_path();
        // A name is a line of a list and a part of a URL: others are left out.
        let name = path.strip_prefix(&base).ok().and_then(Path::to_str).unwrap_or_default().to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if small && !name.is_empty() && name.chars().all(plain) && !name.contains("..") {
            inputs.push(Input { path, name });
        }
    }
    inputs.truncate(MOST_FILES);
    ensure!(inputs.len() >= 2, "there are no text files in {}", base.display());
    Ok(inputs)
}

fn say(step: &str, what: &str) {
    println!("{step:>7}  {what}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
