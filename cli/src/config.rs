//! Which grid to talk to: flag, environment, `./.millgrid.toml`, `~/.config/millgrid/config.toml`, in this order.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    failure::Failure,
    globals::{Format, Globals, given},
};

/// The context that `millgrid dev` writes, used when no other is chosen.
pub const DEV_CONTEXT: &str = "dev";

/// The project's own file, in the current directory.
const PROJECT_FILE: &str = ".millgrid.toml";

/// A configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

/// A grid, and how its user likes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    endpoints: Option<Vec<String>>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    queue: Option<String>,
    output: Option<Format>,
}

/// What the configuration comes to.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Coordinators; may be empty.
    pub endpoints: Vec<String>,
    /// Path of the authority's certificate.
    pub ca: Option<PathBuf>,
    /// Path of the caller's certificate.
    pub cert: Option<PathBuf>,
    /// Path of the caller's key.
    pub key: Option<PathBuf>,
    /// The queue to submit to.
    pub queue: Option<String>,
    /// How to write results.
    pub output: Option<Format>,
    /// Whether this grid is one of `millgrid dev`, whose tasks see the caller's files.
    pub dev: bool,
    /// Whether it is the one that `millgrid dev` keeps where none is named.
    pub default_dev: bool,
}

/// `~/.config/millgrid/config.toml`; none without a home.
pub fn user_file() -> Option<PathBuf> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(Path::new(&home).join(".config/millgrid/config.toml"))
}

/// Reads the files and joins them with what was given.
pub fn load(globals: &Globals) -> Result<Config, Failure> {
    let files = [Some(PathBuf::from(PROJECT_FILE)), user_file()];
    let files = files.into_iter().flatten().map(|path| read(&path)).collect::<Result<Vec<File>, _>>()?;
    let in_dev = env::var("MILLGRID_DEV").is_ok_and(|value| value == "1");
    resolve(globals, &files, in_dev)
}

/// A file that isn't there says nothing.
fn read(path: &Path) -> Result<File, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(Failure::file("read", path, &error)),
    };
    let mut file = parse(&text, &path.display().to_string())?;
    // Paths in a file are relative to it.
    let folder = path.parent().unwrap_or(Path::new(""));
    for context in file.context.values_mut() {
        for path in [&mut context.ca, &mut context.cert, &mut context.key].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
    Ok(file)
}

fn parse(text: &str, name: &str) -> Result<File, Failure> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Failure::usage("", format!("{name}:{line}: {message}"))
            .hint("a context has endpoints, ca, cert, key, queue and output; `current` names the one to use")
    })
}

fn resolve(globals: &Globals, files: &[File], in_dev: bool) -> Result<Config, Failure> {
    let chosen = given(&globals.context).cloned().or_else(|| files.iter().find_map(|file| file.current.clone()));
    let endpoint = given(&globals.endpoint);
    let find = |name: &str| files.iter().find_map(|file| file.context.get(name)).cloned();
    let name = chosen.as_deref().unwrap_or(DEV_CONTEXT);
    let context = match find(name) {
        Some(context) => context,
        None if chosen.is_some() && endpoint.is_none() => {
            let known: Vec<&str> = files.iter().flat_map(|file| file.context.keys()).map(String::as_str).collect();
            let hint = if known.is_empty() {
                "no context is configured".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(Failure::usage("context", format!("there is no context `{name}`")).hint(hint));
        }
        None => Context::default(),
    };
    let endpoints = match endpoint {
        Some(list) => list.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect(),
        None => context.endpoints.clone().unwrap_or_default(),
    };
    // An endpoint of its own may be any grid: the context's name says nothing about it.
    let default_dev = endpoint.is_none() && name == DEV_CONTEXT && context.endpoints.is_some();
    Ok(Config {
        endpoints,
        ca: given(&globals.ca).cloned().or(context.ca),
        cert: given(&globals.cert).cloned().or(context.cert),
        key: given(&globals.key).cloned().or(context.key),
        queue: context.queue,
        output: globals.output.or(context.output),
        dev: in_dev || default_dev,
        default_dev,
    })
}

impl Config {
    /// What the client needs; the files are read here.
    pub fn settings(&self) -> Result<client::Settings, Failure> {
        if self.endpoints.is_empty() {
            return Err(Failure::usage("endpoint", "no grid is chosen").hint(
                "start one here with `millgrid dev`, or name one with `--endpoint`, `--context` or MILLGRID_ENDPOINT",
            ));
        }
        let read = |option: &'static str, path: &Option<PathBuf>| {
            let path = path.as_ref().ok_or_else(|| {
                Failure::usage(option, format!("no `--{option}` is given"))
                    .hint("`--ca`, `--cert` and `--key` name PEM files; `eval \"$(millgrid dev env)\"` sets them for a local grid")
            })?;
            fs::read(path).map_err(|error| Failure::file(&format!("read --{option}"), path, &error))
        };
        let (ca, cert, key) = (read("ca", &self.ca)?, read("cert", &self.cert)?, read("key", &self.key)?);
        Ok(client::Settings::new(self.endpoints.clone(), ca, cert, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str =
        "current = 'lab'\n[context.lab]\nendpoints = ['https://lab:7070']\nqueue = 'gpu'\noutput = 'json'\n";
    const DEV: &str = "[context.dev]\nendpoints = ['https://127.0.0.1:7070']\nca = 'ca.pem'\n";

    fn check(globals: &Globals, texts: &[&str], expected: Result<(&str, bool), &str>) {
        let files: Vec<File> = texts.iter().map(|text| parse(text, "f").unwrap()).collect();
        let found = resolve(globals, &files, false);
        let found = found.map(|config| (config.endpoints.join(","), config.dev)).map_err(|failure| failure.to_string());
        assert_eq!(found, expected.map(|(urls, dev)| (urls.to_owned(), dev)).map_err(str::to_owned));
    }

    #[test]
    fn flags_win_over_the_project_and_the_project_over_the_user() {
        let none = Globals::default();
        let context = |name: &str| Globals { context: Some(name.to_owned()), ..Globals::default() };
        let endpoint = Globals { endpoint: Some("https://a,https://b".to_owned()), ..Globals::default() };
        check(&none, &[], Ok(("", false)));
        check(&none, &[DEV], Ok(("https://127.0.0.1:7070", true)));
        check(&none, &[LAB, DEV], Ok(("https://lab:7070", false)));
        check(&context("dev"), &[LAB, DEV], Ok(("https://127.0.0.1:7070", true)));
        check(&context("x"), &[LAB, DEV], Err("--context: there is no context `x`"));
        check(&endpoint, &[LAB, DEV], Ok(("https://a,https://b", false)));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let failure = parse("current = 'a'\n[context.a]\nendpoint = ['x']\n", "c.toml").unwrap_err();
        assert!(failure.to_string().starts_with("c.toml:3: unknown field `endpoint`"), "{failure}");
    }
}
