//! Where a task may run and what it takes: `zone=a,b`, `!gpu`, `cpus=8,mem=16G`, `matlab=2`.

use proto::v1::{Constraint, Resources};

use super::{Malformed, numbers, resources};

/// Enough for a cpu when nothing is said.
pub const DEFAULT_CPU_MILLI: u64 = 1000;
/// Values of one constraint.
const MAX_VALUES: usize = 64;

/// `LABEL=V1,V2`, `LABEL!=V1,V2`, `LABEL` (it is there) or `!LABEL` (it isn't).
pub fn constraint(text: &str) -> Result<Constraint, Malformed> {
    let malformed = |what: &str| {
        Malformed::new(format!("{what}; write `zone=a,b`, `lifecycle!=spot`, `gpu` (it has the label) or `!gpu`"))
    };
    let (bare, absent) = text.strip_prefix('!').map_or((text, false), |rest| (rest, true));
    let (label, values, negated) = match bare.split_once('=') {
        None => (bare, None, absent),
        Some(_) if absent => return Err(malformed("the `!` of a value stands before its `=`")),
        Some((label, values)) => match label.strip_suffix('!') {
            Some(label) => (label, Some(values), true),
            None => (label, Some(values), false),
        },
    };
    if label.is_empty() || label.contains(['!', ',', ' ']) {
        return Err(malformed("no label of a worker"));
    }
    let values: Vec<String> = values.map_or_else(Vec::new, |values| values.split(',').map(str::to_owned).collect());
    if values.iter().any(String::is_empty) {
        return Err(malformed("a value is empty"));
    }
    if values.len() > MAX_VALUES {
        return Err(Malformed::new(format!("more than {MAX_VALUES} values")));
    }
    Ok(Constraint { label: label.to_owned(), values, negated, preferred: false })
}

/// Other resources for the same task, whole: what isn't named is as by default.
pub fn alternative(text: &str) -> Result<Resources, Malformed> {
    let mut found = Resources { cpu_milli: DEFAULT_CPU_MILLI, ..Resources::default() };
    let mut named = Vec::new();
    for word in text.split(',') {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if named.contains(&name) {
            return Err(Malformed::new(format!("`{name}` stands there twice")));
        }
        match name {
            "cpus" => found.cpu_milli = resources::cpu_milli(value)?,
            "mem" => found.memory_mib = resources::mib(value)?,
            "scratch" => found.scratch_gib = resources::gib(value)?,
            "gpus" => {
                let gpus = numbers::whole(value);
                found.gpus = gpus.ok_or_else(|| Malformed::new(format!("`{value}` is no number of gpus")))?;
            }
            _ => {
                let message = format!(
                    "`{word}` is none of cpus=, mem=, gpus=, scratch=; write e.g. `cpus=8,mem=16G,gpus=1,scratch=10G`"
                );
                return Err(Malformed::new(message));
            }
        }
        named.push(name);
    }
    Ok(found)
}

/// `NAME`, or `NAME=N` of them.
pub fn license(text: &str) -> Result<(String, u32), Malformed> {
    let (name, count) = text.split_once('=').map_or((text, Some(1)), |(name, count)| (name, numbers::whole(count)));
    match count.filter(|count| *count > 0) {
        Some(count) if !name.is_empty() => Ok((name.to_owned(), count)),
        _ => Err(Malformed::new("not a license and how many each task takes; write `matlab` or `matlab=2`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_name_a_label_and_its_values() {
        let constraint_of = |label: &str, values: &[&str], negated| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Some(Constraint { label: label.to_owned(), values, negated, preferred: false })
        };
        for (text, expected) in [
            ("zone=a", constraint_of("zone", &["a"], false)),
            ("zone=a,b", constraint_of("zone", &["a", "b"], false)),
            ("zone!=a,b", constraint_of("zone", &["a", "b"], true)),
            ("gpu", constraint_of("gpu", &[], false)),
            ("!gpu", constraint_of("gpu", &[], true)),
            ("own.label-1=x=y", constraint_of("own.label-1", &["x=y"], false)),
            ("", None),
            ("!", None),
            ("=a", None),
            ("!=a", None),
            ("zone=", None),
            ("zone=a,", None),
            ("zone,arch", None),
            ("!zone=a", None),
            ("!!zone", None),
            ("a b=c", None),
        ] {
            assert_eq!(constraint(text).ok(), expected, "{text:?}");
        }
        assert!(constraint(&format!("zone={}", vec!["a"; 65].join(","))).is_err());
    }

    #[test]
    fn alternatives_are_whole() {
        let resources_of =
            |cpu_milli, memory_mib, gpus, scratch_gib| Some(Resources { cpu_milli, memory_mib, gpus, scratch_gib });
        for (text, expected) in [
            ("cpus=8,mem=16G,gpus=1,scratch=10G", resources_of(8000, 16 << 10, 1, 10)),
            ("mem=4G", resources_of(1000, 4096, 0, 0)),
            ("cpus=0.5", resources_of(500, 0, 0, 0)),
            ("", None),
            ("cpus", None),
            ("cpus=0", None),
            ("cpus=1,cpus=2", None),
            ("mem=8", None),
            ("gpus=-1", None),
            ("memory=8G", None),
            ("cpus=1,", None),
        ] {
            assert_eq!(alternative(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_license_is_counted_from_one() {
        for (text, expected) in [
            ("matlab", Some(("matlab".to_owned(), 1))),
            ("matlab=2", Some(("matlab".to_owned(), 2))),
            ("matlab=0", None),
            ("matlab=", None),
            ("matlab=-1", None),
            ("=2", None),
            ("", None),
        ] {
            assert_eq!(license(text).ok(), expected, "{text:?}");
        }
    }
}
