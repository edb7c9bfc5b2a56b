//! Rules about files as a whole.

use super::{Broken, Source};

/// Past this many lines there is a seam.
const MOST_LINES: usize = 800;

/// Files that may be longer, each with its reason.
const LONG: [(&str, &str); 0] = [];

/// What a newcomer must find in the README.
const COMMANDS: [&str; 5] =
    ["cargo xtask demo", "cargo xtask test", "cargo xtask install", "millgrid dev", "millgrid submit"];

/// Sources that can't be read at one sitting.
pub fn long(sources: &[Source]) -> Vec<Broken> {
    let sources = sources.iter().filter(|source| source.path.ends_with(".rs") || source.path.ends_with(".proto"));
    let excused = |source: &Source| LONG.iter().any(|(path, _)| *path == source.path);
    let too_long = sources.filter(|source| !excused(source)).filter_map(|source| {
        let lines = source.text.lines().count();
        let problem = format!("{lines} lines, at most {MOST_LINES}: find the seam");
        (lines > MOST_LINES).then(|| Broken { place: source.path.clone(), problem })
    });
    too_long.collect()
}

/// Commands that the README doesn't tell.
pub fn readme(sources: &[Source]) -> Vec<Broken> {
    let text = sources.iter().find(|source| source.path == "README.md").map_or("", |source| &source.text);
    let missing = COMMANDS.into_iter().filter(|command| !text.contains(command));
    missing
        .map(|command| Broken { place: "README.md".to_owned(), problem: format!("it doesn't name `{command}`") })
        .collect()
}

/// Blanks that nobody sees but every diff shows.
pub fn blanks(sources: &[Source]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for source in sources {
        // Two blanks at the end of a line mean something in Markdown.
        let checked = !source.path.ends_with(".md");
        let blank = |line: &str| checked && line.trim_end() != line;
        if let Some(index) = source.text.lines().position(blank) {
            let place = format!("{}:{}", source.path, index + 1);
            broken.push(Broken { place, problem: "blanks at the end".to_owned() });
        }
        if !source.text.is_empty() && !source.text.ends_with('\n') {
            broken.push(Broken { place: source.path.clone(), problem: "no newline at the end".to_owned() });
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Vec<Source> {
        vec![Source { path: path.to_owned(), text: text.to_owned() }]
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(long(&source("a.rs", &"\n".repeat(MOST_LINES))).is_empty());
        assert_eq!(long(&source("a.rs", &"\n".repeat(MOST_LINES + 1))).len(), 1);
        assert!(long(&source("a.md", &"\n".repeat(MOST_LINES + 1))).is_empty());
    }

    #[test]
    fn a_readme_without_its_commands_is_found() {
        assert_eq!(readme(&[]).len(), COMMANDS.len());
        assert!(readme(&source("README.md", &COMMANDS.join("\n"))).is_empty());
    }

    #[test]
    fn blanks_at_the_end_are_found() {
        assert_eq!(blanks(&source("a.rs", "fn a() {} \n"))[0].place, "a.rs:1");
        assert_eq!(blanks(&source("a.rs", "fn a() {}")).len(), 1);
        assert!(blanks(&source("a.md", "a  \nb\n")).is_empty());
    }
}
