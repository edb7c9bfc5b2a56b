//! Looking into JSON documents.

use serde_json::Value;

/// A field that must be a text.
#[track_caller]
pub fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document[field].as_str().unwrap_or_else(|| panic!("`{field}` is no text in {document}"))
}

/// A field that must be a whole number from 0.
#[track_caller]
pub fn whole(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("`{field}` is no whole number in {document}"))
}

/// Checks that every field is there and of its type: `text`, `whole`, `integer`, `number`, `bool`, `array`,
/// `object`, `time` (RFC 3339 UTC); `?` behind a type allows null.
#[track_caller]
pub fn check_fields(document: &Value, fields: &[(&str, &str)]) {
    for (name, kind) in fields {
        let Some(value) = document.get(name) else { panic!("`{name}` is missing in {document}") };
        let (kind, optional) = kind.strip_suffix('?').map_or((*kind, false), |kind| (kind, true));
        let fits = match kind {
            "text" => value.is_string(),
            "whole" => value.is_u64(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "bool" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "time" => value.as_str().is_some_and(is_time),
            _ => panic!("`{kind}` is no kind of field"),
        };
        assert!(fits || (optional && value.is_null()), "`{name}` is no {kind} but {value} in {document}");
    }
}

/// Whether it looks like `2026-11-22T18:40:00Z`, with or without parts of a second.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let Some(parts) = rest.strip_suffix('Z') else { return false };
    parts.is_empty() || parts.strip_prefix('.').is_some_and(|parts| parts.chars().all(|c| c == '0'))
}

#[cfg(test)]
mod tests {
    use super::is_time;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert!(is_time("2026-11-22T18:40:00Z"));
        assert!(is_time("2026-11-22T18:40:00.123Z"));
        assert!(!is_time("2026-11-22 18:40:00"));
        assert!(!is_time("2026-11-22T18:40:00+01:00"));
    }
}
