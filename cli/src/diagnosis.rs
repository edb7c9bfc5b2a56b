//! What is wrong with a command line, in one line, and the way out in another.

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The message, and the hint (which may be empty).
pub fn of(error: &clap::Error) -> (String, String) {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first).trim_end().to_owned();
    // What is missing stands in lines of its own.
    if error.kind() == ErrorKind::MissingRequiredArgument {
        let missing: Vec<&str> =
            text.lines().skip(1).take_while(|line| line.starts_with("  ")).map(str::trim).collect();
        message = format!("missing {}", missing.join(", "));
    }
    let suggestion = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| error.get(kind).and_then(first_word));
    let valid = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(format!("there are: {}", values.join(", "))),
        _ => None,
    };
    let hint = suggestion.map(|word| format!("did you mean `{word}`?")).or(valid).unwrap_or_default();
    (message, hint)
}

/// The same, with the verb's own help as the last way out.
pub fn with_help(error: &clap::Error, command: &Command, arguments: &[String]) -> (String, String) {
    let mut verbs = vec![command.get_name().to_owned()];
    let mut at = command;
    for word in arguments.iter().skip(1).take_while(|word| *word != "--") {
        if let Some(found) = at.find_subcommand(word) {
            verbs.push(found.get_name().to_owned());
            at = found;
        }
    }
    let path = verbs.join(" ");
    if matches!(error.kind(), ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        let known: Vec<&str> = at.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name).collect();
        return (format!("`{path}` needs a verb"), format!("there are: {}", known.join(", ")));
    }
    let (message, hint) = of(error);
    let hint = if hint.is_empty() { format!("see `{path} --help`") } else { hint };
    (message, hint)
}

fn first_word(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(word) => Some(word.clone()),
        ContextValue::Strings(words) => words.first().cloned(),
        _ => None,
    }
}

/// Whether `-o json` stands in a command line that can't be read as a whole.
pub fn asks_for_json(words: &[String]) -> bool {
    let before: Vec<&str> = words.iter().map(String::as_str).take_while(|word| *word != "--").collect();
    let json = |value: &str| value == "json" || value == "jsonl";
    let joined = before.iter().any(|word| {
        let value = word.strip_prefix("--output=").or(word.strip_prefix("-o"));
        value.is_some_and(|value| json(value.trim_start_matches('=')))
    });
    let apart = before.windows(2).any(|pair| matches!(pair[0], "-o" | "--output") && json(pair[1]));
    joined || apart || std::env::var("MILLGRID_OUTPUT").is_ok_and(|value| json(&value))
}
