//! Placeholders that nothing gives a value are found before a job is sent.

use proto::{template, v1::JobSpec};

use crate::failure::Failure;

/// Names that every task has a value for.
const ALWAYS: [&str; 3] = ["index", "job", "attempt"];

/// Checks all texts of a job in which placeholders stand.
pub fn check(spec: &JobSpec) -> Result<(), Failure> {
    let rows = spec.array.as_ref().and_then(|array| array.rows.as_ref());
    let named = rows.map(|rows| rows.placeholders.as_slice()).unwrap_or_default();
    for (place, text) in texts(spec) {
        for name in template::placeholders(text) {
            if ALWAYS.contains(&name) || named.iter().any(|known| known == name) {
                continue;
            }
            let failure = Failure::usage("", format!("{place}: the placeholder `{{{name}}}` has no value"));
            let hint = match name {
                "line" => "it needs `--each-line`".to_owned(),
                _ => format!("write `{{{{{name}}}}}` if the braces are meant as they stand"),
            };
            return Err(failure.hint(hint));
        }
    }
    Ok(())
}

fn texts(spec: &JobSpec) -> impl Iterator<Item = (&'static str, &str)> {
    let command = spec.command.iter().map(|word| ("the command", word.as_str()));
    let env = spec.env.values().map(|value| ("--env", value.as_str()));
    let inputs = spec.inputs.iter().flat_map(|input| [("--in", input.source.as_str()), ("--in", input.path.as_str())]);
    let outputs =
        spec.outputs.iter().flat_map(|output| [("--out", output.glob.as_str()), ("--out", output.prefix.as_str())]);
    command.chain(env).chain(inputs).chain(outputs).chain([("--name", spec.name.as_str())])
}

#[cfg(test)]
mod tests {
    use proto::v1::{Rows, TaskArray};

    use super::*;

    fn check_command(word: &str, placeholders: &[&str], expected: Option<&str>) {
        let rows =
            Rows { placeholders: placeholders.iter().map(|name| (*name).to_owned()).collect(), ..Rows::default() };
        let array = Some(TaskArray { rows: Some(rows), ..TaskArray::default() });
        let spec = JobSpec { command: vec![word.to_owned()], array, ..JobSpec::default() };
        let found = check(&spec).err().map(|failure| failure.to_string());
        assert_eq!(found.as_deref(), expected, "{word}");
    }

    #[test]
    fn a_name_without_a_value_is_told() {
        check_command("{index} {job} {attempt}", &[], None);
        check_command("{line}", &["line"], None);
        check_command("{line}", &[], Some("the command: the placeholder `{line}` has no value"));
        check_command("{nosuch}", &["line"], Some("the command: the placeholder `{nosuch}` has no value"));
        check_command("${HOME} {} {{nosuch}} {1}", &[], None);
    }
}
