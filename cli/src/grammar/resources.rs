//! Cpus, memory, scratch: exact decimals, never floats.

use super::Malformed;

/// Most cpus that are well-formed; more than any pool has is the grid's to say.
const MAX_CPUS: u128 = 1_000_000;
/// 4096T, in bytes.
const MAX_BYTES: u128 = 4096 << 40;

/// Cpus, in thousandths: `0.001` and up; a finer fraction is rounded up.
pub fn cpu_milli(text: &str) -> Result<u64, Malformed> {
    let malformed = |what: &str| Malformed::new(format!("{what}; give a number of cpus such as `4` or `0.5`"));
    let (value, scale) = decimal(text).ok_or_else(|| malformed("not a number"))?;
    if value == 0 {
        return Err(malformed("a task needs some cpu"));
    }
    if value * 1000 < scale {
        return Err(malformed("less than 0.001 cpus"));
    }
    if value > MAX_CPUS * scale {
        return Err(malformed("more than 1000000 cpus"));
    }
    Ok((value * 1000).div_ceil(scale) as u64)
}

/// Memory in MiB, rounded up.
pub fn mib(text: &str) -> Result<u64, Malformed> {
    bytes(text).map(|bytes| bytes.div_ceil(1 << 20))
}

/// Scratch in GiB, rounded up.
pub fn gib(text: &str) -> Result<u64, Malformed> {
    bytes(text).map(|bytes| bytes.div_ceil(1 << 30))
}

/// A factor above 1 and up to 100, in thousandths; a finer fraction is rounded up.
pub fn factor_milli(text: &str) -> Result<u32, Malformed> {
    let milli = decimal(text).map(|(value, scale)| (value * 1000).div_ceil(scale));
    let within = milli.filter(|milli| (1001..=100_000).contains(milli)).and_then(|milli| u32::try_from(milli).ok());
    within.ok_or_else(|| Malformed::new("not a factor above 1, 100 at most; write e.g. `1.5` or `1.5..32G`"))
}

fn bytes(text: &str) -> Result<u64, Malformed> {
    let malformed = |what: &str| Malformed::new(format!("{what}; write a size such as `8G`, `512M` or `1.5Ti`"));
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "k" | "ki" => 10,
        "m" | "mi" => 20,
        "g" | "gi" => 30,
        "t" | "ti" => 40,
        "" if decimal(digits).is_some() => return Err(malformed("a size needs a unit")),
        _ => return Err(malformed("not a size with one of the units K, M, G, T, Ki, Mi, Gi, Ti")),
    };
    let (value, scale) = decimal(digits).ok_or_else(|| malformed("not a size"))?;
    if value == 0 {
        return Err(malformed("a size must be above zero"));
    }
    let bytes = (value << shift).div_ceil(scale);
    if bytes > MAX_BYTES {
        return Err(malformed("more than 4096T"));
    }
    Ok(bytes as u64)
}

/// A decimal as (numerator, power of ten): at most 9 digits on either side of the point, no sign, no exponent.
fn decimal(text: &str) -> Option<(u128, u128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most: usize| {
        !part.is_empty() && part.len() <= most && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 18) || !digits(fraction, 9) {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    Some((whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: PartialEq + std::fmt::Debug>(parse: fn(&str) -> Result<T, Malformed>, table: &[(&str, Option<T>)]) {
        for (text, expected) in table {
            assert_eq!(parse(text).ok().as_ref(), expected.as_ref(), "{text:?}");
        }
    }

    #[test]
    fn cpus_are_decimals_from_a_thousandth_on() {
        check(
            cpu_milli,
            &[
                ("1", Some(1000)),
                ("0.5", Some(500)),
                ("0.001", Some(1)),
                ("1.0005", Some(1001)),
                ("1000000", Some(1_000_000_000)),
                ("1000001", None),
                ("0", None),
                ("0.0", None),
                ("0.0001", None),
                ("-1", None),
                ("+1", None),
                ("1e3", None),
                ("1,5", None),
                ("four", None),
                ("NaN", None),
                (".5", None),
                ("", None),
                ("99999999999999999999999", None),
            ],
        );
    }

    #[test]
    fn sizes_need_a_unit_and_are_rounded_up() {
        check(
            mib,
            &[
                ("8G", Some(8192)),
                ("8Gi", Some(8192)),
                ("1.5G", Some(1536)),
                ("1K", Some(1)),
                ("1025K", Some(2)),
                ("512m", Some(512)),
                ("4096T", Some(4096 << 20)),
                ("4097T", None),
                ("8", None),
                ("8GB", None),
                ("0G", None),
                ("-1G", None),
                ("G", None),
                ("1 G", None),
                ("1é", None),
                ("", None),
            ],
        );
        check(gib, &[("50G", Some(50)), ("1M", Some(1)), ("1T", Some(1024))]);
        assert!(mib("8").unwrap_err().to_string().contains("unit"));
    }
}
