//! Which crate may import what: the table of the architecture, as a test.

use super::Broken;
use crate::workspace::{Dependency, Kind, Package};

/// Small crates without I/O, which every pure crate may use.
const PURE: [&str; 8] = ["prost", "prost-types", "bytes", "imbl", "blake3", "crc32c", "lz4_flex", "thiserror"];

/// What brings the network, a runtime or the cloud along.
const OUTSIDE: [&str; 9] =
    ["tokio", "tokio-stream", "tonic", "hyper", "hyper-util", "rustls", "aws-config", "aws-sdk-s3", "tracing"];

/// What one crate may depend on. A crate without a row has no place in the architecture yet.
struct Layer {
    package: &'static str,
    /// Crates of this repository that it may import.
    members: &'static [&'static str],
    others: Others,
}

/// Crates from elsewhere.
enum Others {
    /// The pure ones and these.
    Pure(&'static [&'static str]),
    /// All but these.
    Not(&'static [&'static str]),
}

const LAYERS: [Layer; 15] = [
    Layer { package: "proto", members: &[], others: Others::Pure(&["tonic", "tonic-prost"]) },
    Layer { package: "scheduler", members: &["proto"], others: Others::Pure(&[]) },
    Layer { package: "replication", members: &["proto"], others: Others::Pure(&["raft", "slog", "rustix"]) },
    Layer { package: "coordinator-core", members: &["proto", "scheduler", "replication"], others: Others::Pure(&[]) },
    Layer {
        package: "coordinator",
        members: &["proto", "scheduler", "replication", "coordinator-core"],
        others: Others::Not(&[]),
    },
    Layer { package: "worker-core", members: &["proto"], others: Others::Pure(&[]) },
    Layer { package: "worker-keeper", members: &["worker-core"], others: Others::Not(&OUTSIDE) },
    // Staging is tested against the S3 endpoint of `dev`.
    Layer {
        package: "worker-agent",
        members: &["proto", "worker-core", "worker-keeper", "client", "dev-s3"],
        others: Others::Not(&["raft"]),
    },
    Layer { package: "client", members: &["proto"], others: Others::Not(&["raft", "aws-config", "aws-sdk-s3"]) },
    Layer { package: "cli", members: &["proto", "client", "dev-s3"], others: Others::Not(&["raft"]) },
    Layer { package: "dev-s3", members: &[], others: Others::Not(&["raft", "tonic"]) },
    Layer {
        package: "simulation",
        members: &["proto", "scheduler", "replication", "coordinator-core", "worker-core"],
        others: Others::Pure(&["clap"]),
    },
    // These drive the programs from outside and must not know what is inside.
    Layer { package: "e2e", members: &[], others: Others::Not(&["tokio", "tonic", "raft"]) },
    // Its load program speaks to the grid as clients and workers do.
    Layer { package: "bench", members: &["client", "e2e", "proto"], others: Others::Not(&["raft"]) },
    Layer { package: "xtask", members: &[], others: Others::Not(&["tokio", "tonic", "raft"]) },
];

/// Every dependency that its layer forbids, and every crate without a layer.
pub fn check(packages: &[Package]) -> Vec<Broken> {
    let members: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut broken = Vec::new();
    for package in packages {
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == package.name) else {
            broken.push(Broken { place: package.name.clone(), problem: "it has no layer".to_owned() });
            continue;
        };
        for dependency in &package.dependencies {
            if let Some(problem) = layer.refuses(dependency, &members) {
                broken.push(Broken { place: package.name.clone(), problem });
            }
        }
    }
    broken
}

impl Layer {
    fn refuses(&self, dependency: &Dependency, members: &[&str]) -> Option<String> {
        let name = dependency.name.as_str();
        if members.contains(&name) {
            // Tests may not reach across a layer either: what they need from there belongs in `e2e`.
            if !self.members.contains(&name) {
                return Some(format!("it may not import `{name}`"));
            }
            if self.pure() && dependency.features.iter().any(|feature| feature == "grpc") {
                return Some(format!("it may import the messages of `{name}`, not its feature `grpc`"));
            }
            return None;
        }
        // What compiles or tests a crate is not in it.
        if dependency.kind != Kind::Normal {
            return None;
        }
        let allowed = match self.others {
            Others::Pure(more) => PURE.contains(&name) || more.contains(&name),
            Others::Not(forbidden) => !forbidden.contains(&name),
        };
        if !allowed {
            return Some(format!("it may not import `{name}`"));
        }
        let hidden = self.package != "proto" || !name.starts_with("tonic") || dependency.optional;
        (!hidden).then(|| format!("`{name}` must be behind the feature `grpc`"))
    }

    fn pure(&self) -> bool {
        matches!(self.others, Others::Pure(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(package: &str, dependency: &str, kind: Kind, features: &[&str]) -> Vec<String> {
        let dependencies = vec![Dependency {
            name: dependency.to_owned(),
            kind,
            optional: false,
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
        }];
        let with = Package { name: package.to_owned(), dependencies, has_program: false };
        let plain = |name: &str| Package { name: name.to_owned(), dependencies: Vec::new(), has_program: false };
        let found = check(&[with, plain("proto"), plain("scheduler"), plain("client")]);
        found.into_iter().map(|broken| broken.problem).collect()
    }

    #[test]
    fn a_pure_crate_imports_messages_and_small_crates_only() {
        assert!(check_one("scheduler", "proto", Kind::Normal, &[]).is_empty());
        assert!(check_one("scheduler", "imbl", Kind::Normal, &[]).is_empty());
        assert!(check_one("scheduler", "proptest", Kind::Dev, &[]).is_empty());
        assert_eq!(check_one("scheduler", "tokio", Kind::Normal, &[]), ["it may not import `tokio`"]);
        assert_eq!(check_one("scheduler", "proto", Kind::Normal, &["grpc"]).len(), 1);
    }

    #[test]
    fn layers_hold_in_tests_too() {
        assert_eq!(check_one("replication", "scheduler", Kind::Normal, &[]).len(), 1);
        assert_eq!(check_one("cli", "scheduler", Kind::Dev, &[]), ["it may not import `scheduler`"]);
        assert!(check_one("cli", "client", Kind::Normal, &[]).is_empty());
    }

    #[test]
    fn the_contract_needs_tonic_only_for_grpc() {
        assert_eq!(check_one("proto", "tonic", Kind::Normal, &[]), ["`tonic` must be behind the feature `grpc`"]);
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        assert_eq!(check_one("toolbox", "serde", Kind::Normal, &[]), ["it has no layer"]);
    }
}
