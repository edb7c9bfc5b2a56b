//! What may be written to a terminal: no control characters of strangers.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

/// Whether a character moves the cursor, rings, hides or reorders text.
fn is_control(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name in one line: every control character is shown as a question mark in a box.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(is_control) {
        Cow::Owned(text.chars().map(|letter| if is_control(letter) { '\u{fffd}' } else { letter }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Log bytes for a terminal: newlines and tabs stay, a carriage return begins a new line, the rest of the
/// control characters and what isn't UTF-8 are replaced. Bytes of a character that the next piece ends are kept
/// in `rest`.
pub fn printable(bytes: &[u8], rest: &mut Vec<u8>) -> String {
    rest.extend_from_slice(bytes);
    let mut text = String::with_capacity(rest.len());
    let mut input = std::mem::take(rest);
    let mut at = 0;
    while at < input.len() {
        match std::str::from_utf8(&input[at..]) {
            Ok(valid) => {
                text.push_str(valid);
                at = input.len();
            }
            Err(error) => {
                let valid = at + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&input[at..valid]));
                let Some(length) = error.error_len() else {
                    *rest = input.split_off(valid);
                    break;
                };
                text.push('\u{fffd}');
                at = valid + length;
            }
        }
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars()
        .map(|letter| if is_control(letter) && letter != '\n' && letter != '\t' { '\u{fffd}' } else { letter })
        .collect()
}

/// Which of ours a log stream goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Sink {
    /// Writes bytes of a log: as they are to a file or a pipe, printable to a terminal.
    pub fn write(self, bytes: &[u8], rest: &mut Vec<u8>) -> io::Result<()> {
        let terminal = match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        };
        let text = terminal.then(|| printable(bytes, rest));
        let bytes = text.as_deref().map_or(bytes, str::as_bytes);
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
        }
    }
}

/// A remark for people on stderr, unless they asked for quiet.
pub fn note(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("{}", one_line(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let table: [(&[u8], &str); 6] = [
            (b"plain\n\ttext\n", "plain\n\ttext\n"),
            (b"\x1b[31mred\x07", "\u{fffd}[31mred\u{fffd}"),
            (b"10%\r20%\r\n", "10%\n20%\n"),
            ("\u{9b}2J".as_bytes(), "\u{fffd}2J"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("é\u{202e}".as_bytes(), "é\u{fffd}"),
        ];
        for (bytes, expected) in table {
            assert_eq!(printable(bytes, &mut Vec::new()), expected, "{bytes:?}");
        }
        assert_eq!(one_line("a\nb\x1b"), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn a_character_cut_in_two_is_whole_again() {
        let mut rest = Vec::new();
        assert_eq!(printable(&"é".as_bytes()[..1], &mut rest), "");
        assert_eq!(printable(&"é".as_bytes()[1..], &mut rest), "é");
        assert!(rest.is_empty());
    }
}
