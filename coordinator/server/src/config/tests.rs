#![allow(clippy::unwrap_used)]

use super::*;

const GOOD: &str = r#"
name = "c1"
data_dir = "data"
address = "https://127.0.0.1:7070"
peer_address = "127.0.0.1:7170"
ca = "/etc/ca.pem"
cert = "c1.pem"
key = "c1.key"
grid_prefix = "s3://dev/.millgrid"
[[pool]]
name = "local"
cpu_milli = 2000
"#;

/// Loads `text` as a file, and the flags.
fn check(text: &str, flags: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c1.toml");
    std::fs::write(&file, text).unwrap();
    let line = ["millgrid-coordinator", "--config", file.to_str().unwrap()];
    let arguments = <Arguments as clap::Parser>::try_parse_from(line.iter().chain(flags)).unwrap();
    load(&arguments).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, flags: &[&str], parts: &[&str]) {
    let message = check(text, flags).map(|_| ()).unwrap_err();
    for part in parts {
        assert!(message.contains(part), "`{part}` isn't in: {message}");
    }
}

#[test]
fn paths_of_the_file_are_relative_to_it_and_flags_win() {
    let config = check(GOOD, &["--name", "c9", "--election", "fast"]).unwrap();
    assert_eq!(config.name, "c9");
    assert_eq!(config.election, Election::Fast);
    assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"));
    assert_eq!(config.ca, PathBuf::from("/etc/ca.pem"));
    assert_eq!(config.grid_prefix, "s3://dev/.millgrid/");
    assert_eq!(config.listen.port(), 7070);
    assert_eq!(config.pools.len(), 1);
}

#[test]
fn the_history_has_a_pause_and_the_newest_rules_unless_something_else_is_said() {
    let config = check(GOOD, &[]).unwrap();
    assert_eq!(config.history_pause, Duration::from_secs(60));
    assert_eq!(config.newest_rules, scheduler::NEWEST_RULES);
    let file = format!("history_pause = \"1s\"\nnewest_rules = 1\n{GOOD}");
    let config = check(&file, &[]).unwrap();
    assert_eq!(config.history_pause, Duration::from_secs(1));
    assert_eq!(config.newest_rules, 1);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    refused(&GOOD.replace("ca =", "caa ="), &[], &["caa", "line 6"]);
    refused(&GOOD.replace("cpu_milli", "cpus"), &[], &["cpus", "line 12"]);
}

#[test]
fn a_missing_key_is_named_with_the_ways_to_set_it() {
    refused(
        &GOOD.replace("data_dir = \"data\"", ""),
        &[],
        &["data_dir", "MILLGRID_COORDINATOR_DATA_DIR", "--data-dir"],
    );
}

#[test]
fn each_value_is_checked_under_its_name() {
    refused(GOOD, &["--listen", "here"], &["`listen`", "here"]);
    refused(GOOD, &["--peer-address", "nowhere"], &["`peer_address`", "nowhere"]);
    refused(GOOD, &["--address", "127.0.0.1:7070"], &["`address`"]);
    refused(GOOD, &["--name", "a b"], &["`name`", "a b"]);
    refused(GOOD, &["--election", "slow"], &["`election`", "slow"]);
    refused(GOOD, &["--grid-prefix", "/tmp"], &["`grid_prefix`"]);
    refused(GOOD, &["--max-connections", "0"], &["`max_connections`"]);
    refused(GOOD, &["--snapshot-commands", "0"], &["`snapshot_commands`"]);
    refused(GOOD, &["--snapshot-mib", "0"], &["`snapshot_mib`"]);
    refused(GOOD, &["--history-pause", "soon"], &["`history_pause`", "soon", "60s"]);
    refused(GOOD, &["--history-pause", "10"], &["`history_pause`", "10"]);
    refused(GOOD, &["--history-pause", "25h"], &["`history_pause`", "25h"]);
    refused(GOOD, &["--newest-rules", "0"], &["`newest_rules`"]);
    refused(GOOD, &["--newest-rules", "999"], &["`newest_rules`", "999"]);
    refused(GOOD, &["--log-format", "xml"], &["`log_format`"]);
    refused(GOOD, &["--log", "a=b=c"], &["`log`"]);
    refused(&GOOD.replace("2000", "0"), &[], &["`pool.cpu_milli`"]);
    refused(&GOOD.replace("2000", "\"two\""), &[], &["cpu_milli", "line 12"]);
}

#[test]
fn what_is_logged_has_no_secret() {
    let config = check(GOOD, &["--s3-endpoint", "http://user:secret@host:9070"]).unwrap();
    let logged = format!("{config:?}");
    assert!(!logged.contains("secret") && !logged.contains("c1.key"), "{logged}");
}
