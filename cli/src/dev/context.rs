//! The context `dev` in the user's configuration, which is used when no other is chosen.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{failure::Failure, record::Record, state::State};

#[derive(Serialize)]
struct Context {
    endpoints: Vec<String>,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// Writes `[context.dev]`; everything else in the file stays as it is, comments too.
pub fn write(state: &State, record: &Record) -> Result<(), Failure> {
    let Some(path) = path() else { return Ok(()) };
    let file = |name: &str| state.ca().join(name);
    let context = Context {
        endpoints: record.endpoints(),
        ca: file("ca.pem"),
        cert: file("client.pem"),
        key: file("client.key"),
    };
    let section = toml::to_string(&context).map_err(|error| Failure::Other(error.to_string()))?;
    change(&path, Some(&section))
}

/// Takes the context away again.
pub fn remove() -> Result<(), Failure> {
    match path().filter(|path| path.exists()) {
        Some(path) => change(&path, None),
        None => Ok(()),
    }
}

fn path() -> Option<PathBuf> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(Path::new(&home).join(".config/millgrid/config.toml"))
}

fn change(path: &Path, section: Option<&str>) -> Result<(), Failure> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::file("read", path)(error)),
    };
    let new = replaced(&old, section);
    if new == old {
        return Ok(());
    }
    if new.parse::<toml::Table>().is_err() {
        // It was no TOML before, or has the context in another spelling: it is the user's to mend.
        eprintln!("warning: `{}` can't be changed: [context.dev] stays as it is", path.display());
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".config.toml.{}", std::process::id()));
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&temporary, new))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(Failure::file("write", path))
}

/// The text with another `[context.dev]`, or none.
fn replaced(text: &str, section: Option<&str>) -> String {
    let is_header = |line: &&str| line.trim_start().starts_with('[');
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let start = lines.iter().position(|line| line.trim() == "[context.dev]");
    let (before, after) = match start {
        Some(start) => {
            let length = lines[start + 1..].iter().position(is_header).unwrap_or(lines.len() - start - 1);
            (lines[..start].concat(), lines[start + 1 + length..].concat())
        }
        None => (text.to_owned(), String::new()),
    };
    let Some(section) = section else { return format!("{before}{after}") };
    let gap = match before.as_str() {
        "" => "",
        before if before.ends_with("\n\n") || (start.is_some() && before.ends_with('\n')) => "",
        before if before.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let gap_after = if after.is_empty() { "" } else { "\n" };
    format!("{before}{gap}[context.dev]\n{section}{gap_after}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, section: Option<&str>, expected: &str) {
        let new = replaced(text, section);
        assert_eq!(new, expected);
        assert_eq!(replaced(&new, section), new, "a second time changes nothing");
    }

    #[test]
    fn the_context_is_added_replaced_and_removed_and_the_rest_stays() {
        check("", Some("key = 'k'\n"), "[context.dev]\nkey = 'k'\n");
        let lab = "# mine\ncurrent = 'lab'\n\n[context.lab]\nqueue = 'gpu' # fast\n";
        let both = format!("{lab}\n[context.dev]\nkey = 'k'\n");
        check(lab, Some("key = 'k'\n"), &both);
        check(&both, None, &format!("{lab}\n"));
        let between = "[context.dev]\nkey = 'old'\nca = 'x'\n\n[context.lab]\nqueue = 'gpu'\n";
        check(between, Some("key = 'k'\n"), "[context.dev]\nkey = 'k'\n\n[context.lab]\nqueue = 'gpu'\n");
    }
}
