//! Console blocks of a Markdown file: commands behind `$ `, and what they print.

/// A fenced block that is marked `console`.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence in the file, from 1.
    pub line: usize,
    /// Its commands, in order.
    pub steps: Vec<Step>,
}

/// A command and what it prints.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Without the prompt.
    pub command: String,
    /// Lines; `...` stands for any number of them, and inside a line for any text.
    pub expected: Vec<String>,
}

/// Every block of a text.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            None if line == "```console" => open = Some(Block { line: index + 1, steps: Vec::new() }),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => match line.strip_prefix("$ ") {
                Some(command) => {
                    block.steps.push(Step { command: command.to_owned(), expected: Vec::new() });
                }
                None => {
                    let step = block.steps.last_mut().expect("a block begins with a command");
                    step.expected.push(line.to_owned());
                }
            },
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// Whether lines are as expected, with `...` as a wildcard.
pub fn matches(expected: &[&str], found: &[&str]) -> bool {
    match (expected.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        (Some((first, rest)), Some((line, others))) => line_matches(first, line) && matches(rest, others),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn line_matches(expected: &str, found: &str) -> bool {
    let Some((before, after)) = expected.split_once("...") else { return expected.trim_end() == found.trim_end() };
    let Some(rest) = found.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| line_matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_commands() {
        let text = "a\n```console\n$ one\nx\n...\n$ two\n```\n```sh\n$ three\n```\n";
        let step = |command: &str, expected: &[&str]| Step {
            command: command.to_owned(),
            expected: expected.iter().map(|&line| line.to_owned()).collect(),
        };
        assert_eq!(blocks(text), [Block { line: 2, steps: vec![step("one", &["x", "..."]), step("two", &[])] }]);
    }

    #[test]
    fn dots_stand_for_lines_and_for_text() {
        assert!(matches(&[], &[]));
        assert!(matches(&["..."], &[]));
        assert!(matches(&["...", "b"], &["a", "a", "b"]));
        assert!(matches(&["job ... is done"], &["job 42 is done"]));
        assert!(!matches(&["job ... is done"], &["job 42 is lost"]));
        assert!(!matches(&["...", "b"], &["a"]));
        assert!(!matches(&["a"], &["a", "b"]));
    }
}
