/// A key that can be a path beneath a bucket's folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Why a key can't be a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the key `{0}` has a part `.` or `..`, which this endpoint refuses: it keeps objects as plain files")]
    Dots(String),
    #[error(
        "the key `{0}` begins or ends with `/` or has `//`, which this endpoint refuses: it keeps objects as plain files"
    )]
    Slashes(String),
    #[error("a key holds a zero byte, which this endpoint refuses: it keeps objects as plain files")]
    Zero,
    #[error("the key is empty or longer than 1,024 bytes, or a part of it is longer than 255")]
    Length,
}

impl Key {
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        if text.contains('\0') {
            return Err(Unusable::Zero);
        }
        if text.is_empty() || text.len() > 1024 || text.split('/').any(|part| part.len() > 255) {
            return Err(Unusable::Length);
        }
        if text.split('/').any(|part| part == "." || part == "..") {
            return Err(Unusable::Dots(text.to_owned()));
        }
        if text.split('/').any(str::is_empty) {
            return Err(Unusable::Slashes(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders above it, if any, and its own name.
    pub fn split(&self) -> (Option<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((folders, name)) => (Some(folders), name),
            None => (None, &self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leaves_its_bucket() {
        for text in ["..", "a/../b", "../../etc/passwd", "./a", "a/."] {
            assert_eq!(Key::parse(text), Err(Unusable::Dots(text.into())));
        }
        for text in ["/etc/passwd", "a//b", "a/", "/"] {
            assert_eq!(Key::parse(text), Err(Unusable::Slashes(text.into())));
        }
        assert_eq!(Key::parse("a\0b"), Err(Unusable::Zero));
        assert_eq!(Key::parse(""), Err(Unusable::Length));
        assert_eq!(Key::parse(&"x".repeat(256)), Err(Unusable::Length));
        assert_eq!(Key::parse(&"x/".repeat(600)), Err(Unusable::Length));
    }

    #[test]
    fn dots_within_a_name_are_just_letters() {
        for text in ["...", "a..b", ".hidden/x.", "…", "a b/é"] {
            assert_eq!(Key::parse(text).map(|key| key.as_str().to_owned()), Ok(text.to_owned()));
        }
    }
}
