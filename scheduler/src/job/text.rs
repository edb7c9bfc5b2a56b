//! A job's name and spec, in one piece of memory: there are millions of them.

/// Both are as they were submitted, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(Box<[u8]>);

/// Bytes in front that say how long the name is.
const LENGTH: usize = size_of::<u16>();

impl Text {
    /// Of a name that was looked at: it is far shorter than what is cut off here.
    pub fn new(name: &str, spec: &[u8]) -> Self {
        let mut end = name.len().min(usize::from(u16::MAX));
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self([&(end as u16).to_le_bytes(), &name.as_bytes()[..end], spec].concat().into_boxed_slice())
    }

    fn spec_at(&self) -> usize {
        LENGTH + usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.0[LENGTH..self.spec_at()]).expect("it was made of a str")
    }

    /// An encoded `JobSpec`, never opened here.
    pub fn spec(&self) -> &[u8] {
        &self.0[self.spec_at()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_spec_come_back_as_they_were() {
        for (name, spec) in [("", &b""[..]), ("jos\u{e9}", b"\x00\xff"), ("", b"spec"), ("name", b"")] {
            let text = Text::new(name, spec);
            assert_eq!((text.name(), text.spec()), (name, spec));
        }
    }
}
