//! `K=V`: labels and the environment.

use super::Malformed;

/// A variable of a task's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `K=V`: given, with placeholders.
    Given(String, String),
    /// `K`: the caller's own, taken as it is.
    Copied(String),
}

impl Variable {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Given(name, _) | Self::Copied(name) => name,
        }
    }
}

/// The value of `--label`.
pub fn label(text: &str) -> Result<(String, String), Malformed> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Malformed::new("not a label; write `key=value`, e.g. `team=ml`")),
    }
}

/// The value of `--env`.
pub fn variable(text: &str) -> Result<Variable, Malformed> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
    if !first || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err(Malformed::new("not a variable; write `NAME=value`, or `NAME` to take your own"));
    }
    Ok(match value {
        Some(value) => Variable::Given(name.to_owned(), value.to_owned()),
        None => Variable::Copied(name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_variables_split_at_the_first_sign() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert_eq!(variable("K=V=W"), Ok(Variable::Given("K".to_owned(), "V=W".to_owned())));
        assert_eq!(variable("K"), Ok(Variable::Copied("K".to_owned())));
        assert!(variable("1K=V").is_err() && variable("").is_err() && variable("A B=1").is_err());
    }
}
