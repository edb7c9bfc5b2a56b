//! Placeholders: `{name}` in a command, its environment, inputs, outputs and name (interfaces, section 2).
//!
//! `{name}` is a placeholder when name is `[A-Za-z_][A-Za-z0-9_.]*`; `{{` and `}}` stand for single braces;
//! `${...}`, `{}` and every other brace are literal.

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    Placeholder(&'a str),
}

/// Replaces each placeholder by what `value` says; `Err` names one that has no value.
pub fn expand(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => expanded.push_str(literal),
            Piece::Placeholder(name) => expanded.push_str(&value(name).ok_or_else(|| name.to_owned())?),
        }
    }
    Ok(expanded)
}

/// The names of all placeholders in `text`, in order, repeats included.
pub fn placeholders(text: &str) -> Vec<&str> {
    pieces(text)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name),
            Piece::Literal(_) => None,
        })
        .collect()
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut rest, mut literal_end) = (text, 0);
    while let Some(brace) = rest[literal_end..].find(['{', '}']).map(|found| found + literal_end) {
        let after = &rest[brace + 1..];
        let doubled = after.starts_with(&rest[brace..=brace]);
        let name = if rest[brace..].starts_with('{') && !rest[..brace].ends_with('$') { name_in(after) } else { None };
        if doubled {
            pieces.push(Piece::Literal(&rest[..=brace]));
            (rest, literal_end) = (&after[1..], 0);
        } else if let Some(name) = name {
            pieces.push(Piece::Literal(&rest[..brace]));
            pieces.push(Piece::Placeholder(name));
            (rest, literal_end) = (&after[name.len() + 1..], 0);
        } else {
            literal_end = brace + 1;
        }
    }
    pieces.push(Piece::Literal(rest));
    pieces
}

/// The name in front of the closing brace, if it is one.
fn name_in(after_brace: &str) -> Option<&str> {
    let name = &after_brace[..after_brace.find('}')?];
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
    let rest = letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.');
    (first && rest).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let values = |name: &str| match name {
            "index" => Some("7".to_owned()),
            "row.a_b" => Some("x y".to_owned()),
            _ => None,
        };
        assert_eq!(expand(text, values), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
    }

    #[test]
    fn placeholders_are_replaced_and_other_braces_stay() {
        check("--seed {index}", Ok("--seed 7"));
        check("{index}{row.a_b}", Ok("7x y"));
        check("{}, {1}, {a b}, ${index}, ${HOME}", Ok("{}, {1}, {a b}, ${index}, ${HOME}"));
        check("{{index}} }} {{", Ok("{index} } {"));
        check("{{{index}}}", Ok("{7}"));
        check("awk '{print $1}'", Ok("awk '{print $1}'"));
        check("é{index}é {", Ok("é7é {"));
        check("{nosuch}", Err("nosuch"));
    }

    #[test]
    fn names_are_listed_in_order() {
        assert_eq!(placeholders("{b}{a}{{c}}${d}{b}"), ["b", "a", "b"]);
    }
}
