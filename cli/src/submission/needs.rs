//! Options that say where tasks may run, and what they take beside the first resources.

use std::collections::BTreeMap;

use proto::v1::{Constraint, Resources};

use crate::{failure::Failure, grammar::needs};

/// Constraints of one job.
const MAX_CONSTRAINTS: usize = 32;

/// What tasks need beside cpus, memory, gpus and scratch.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Needs {
    /// Labels that a worker must have: LABEL=V1,V2, LABEL!=V, LABEL or !LABEL; may be repeated, all must hold
    #[arg(long, env = "MILLGRID_SUBMIT_CONSTRAINT", hide_env = true, value_parser = needs::constraint, value_name = "LABEL[=V,...]")]
    pub constraint: Vec<Constraint>,
    /// The same, but only better: such workers come first
    #[arg(long, env = "MILLGRID_SUBMIT_PREFER", hide_env = true, value_parser = needs::constraint, value_name = "LABEL[=V,...]")]
    pub prefer: Vec<Constraint>,
    /// Other resources instead, cpus=8,mem=16G,gpus=1,scratch=10G; may be repeated, the first that fit are taken
    #[arg(long, env = "MILLGRID_SUBMIT_ALT", hide_env = true, value_parser = needs::alternative, value_name = "RESOURCES")]
    pub alt: Vec<Resources>,
    /// A license that each task takes while it runs, or N of them; may be repeated
    #[arg(long, env = "MILLGRID_SUBMIT_LICENSE", hide_env = true, value_parser = needs::license, value_name = "NAME[=N]")]
    pub license: Vec<(String, u32)>,
}

impl Needs {
    /// These, with `script`'s where nothing was said here.
    pub fn over(self, script: Self) -> Self {
        Self {
            constraint: if self.constraint.is_empty() { script.constraint } else { self.constraint },
            prefer: if self.prefer.is_empty() { script.prefer } else { self.prefer },
            alt: if self.alt.is_empty() { script.alt } else { self.alt },
            license: if self.license.is_empty() { script.license } else { self.license },
        }
    }
}

/// Required ones, then preferred ones.
pub fn constraints(required: Vec<Constraint>, preferred: Vec<Constraint>) -> Result<Vec<Constraint>, Failure> {
    let preferred = preferred.into_iter().map(|one| Constraint { preferred: true, ..one });
    let all: Vec<Constraint> = required.into_iter().chain(preferred).collect();
    if all.len() > MAX_CONSTRAINTS {
        let message = format!("{} constraints, with those of `--prefer`; {MAX_CONSTRAINTS} at most", all.len());
        return Err(Failure::usage("constraint", message).hint("put values of one label into one: `zone=a,b`"));
    }
    Ok(all)
}

/// Licenses by name.
pub fn licenses(named: Vec<(String, u32)>) -> Result<BTreeMap<String, u32>, Failure> {
    let mut licenses = BTreeMap::new();
    for (name, count) in named {
        if licenses.insert(name.clone(), count).is_some() {
            let message = format!("the license `{name}` is named twice");
            return Err(Failure::usage("license", message).hint(format!("say how many, `--license {name}=N`")));
        }
    }
    Ok(licenses)
}
