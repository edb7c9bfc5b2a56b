//! Machines on a network of their own: namespaces that a test makes, joined by one switch, with cuts between them.
//!
//! Nothing of it is in the system's own namespace, and all of it goes with the [`Network`].

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::permission::skip;

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// Before a process's number in the names of its namespaces.
const PREFIX: &str = "millgrid-e2e-";

/// The first three bytes of every address.
const SUBNET: [u8; 3] = [10, 77, 0];

/// Datagrams of the checks go here.
const PROBE_PORT: u16 = 9;

/// An address that no link has: what is sent there is lost, and the sender isn't told.
const NOBODY: &str = "02:00:00:00:de:ad";

/// What arrives at all arrives at once.
const ARRIVAL: Duration = Duration::from_millis(100);

/// By then a network that is whole lets everything through.
const WHOLE: Duration = Duration::from_secs(5);

/// Hosts on one switch that see each other and nothing else.
pub struct Network {
    name: String,
    hosts: Vec<Host>,
}

struct Host {
    name: String,
    address: Ipv4Addr,
    probe: UdpSocket,
}

impl Network {
    /// Hosts of these names, at most 15 letters each; `None` where namespaces aren't permitted, which is said and
    /// under `CI=true` is a failure.
    #[track_caller]
    pub fn of(names: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // From here on whatever was made is removed, also when the rest fails.
        let mut network = Self { name: format!("{PREFIX}{}-{number}", process::id()), hosts: Vec::new() };
        let mut make = vec![format!("netns add {}", network.namespace("switch"))];
        make.extend(names.iter().map(|name| format!("netns add {}", network.namespace(name))));
        if let Err(reason) = ip(None, &make) {
            skip("network namespaces (root, and `ip` of iproute2)", &reason);
            return None;
        }
        network.wire(names);
        Some(network)
    }

    fn wire(&mut self, names: &[&str]) {
        let switch = self.namespace("switch");
        let mut commands = vec!["link add name switch type bridge".to_owned(), "link set dev switch up".to_owned()];
        for name in names {
            commands.push(format!("link add name {name} type veth peer name eth0 netns {}", self.namespace(name)));
            commands.push(format!("link set dev {name} master switch up"));
        }
        must(Some(&switch), &commands);
        for (number, name) in (1..).zip(names) {
            let address = Ipv4Addr::new(SUBNET[0], SUBNET[1], SUBNET[2], number);
            let up = [
                format!("addr add {address}/24 dev eth0"),
                "link set dev eth0 up".to_owned(),
                "link set dev lo up".to_owned(),
            ];
            must(Some(&self.namespace(name)), &up);
            // A socket stays in the namespace where it was made.
            let probe = inside(&self.namespace(name), || UdpSocket::bind((address, PROBE_PORT)).unwrap());
            probe.set_nonblocking(true).unwrap();
            self.hosts.push(Host { name: (*name).to_owned(), address, probe });
        }
        self.check_whole();
    }

    /// A host's address.
    #[track_caller]
    pub fn address(&self, name: &str) -> Ipv4Addr {
        self.host(name).address
    }

    /// Does something on a host: sockets made and processes started meanwhile are there and stay there.
    pub fn on<T: Send>(&self, name: &str, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace(name), act)
    }

    /// From now on nothing that one of `from` sends to one of `to` arrives. No sender is told, as it is when a cable
    /// is pulled behind the next switch; what goes the other way arrives as before.
    #[track_caller]
    pub fn cut(&self, from: &[&str], to: &[&str]) {
        let mut pairs = Vec::new();
        for from in from {
            let lost: Vec<&Host> = to.iter().filter(|to| *to != from).map(|to| self.host(to)).collect();
            let neighbour = |to: &&Host| format!("neigh replace {} lladdr {NOBODY} dev eth0 nud permanent", to.address);
            must(Some(&self.namespace(from)), &lost.iter().map(neighbour).collect::<Vec<_>>());
            pairs.extend(lost.into_iter().map(|to| (self.host(from), to)));
        }
        self.send_probes(&pairs);
        let start = Instant::now();
        while start.elapsed() < ARRIVAL {
            thread::sleep(Duration::from_millis(5));
        }
        let arrived = self.arrived();
        for (from, to) in pairs {
            assert!(!arrived.contains(&(from.address, to.address)), "{} still reaches {}", from.name, to.name);
        }
    }

    /// Cuts both ways between every one on this side and every one on that side.
    #[track_caller]
    pub fn split(&self, this: &[&str], that: &[&str]) {
        self.cut(this, that);
        self.cut(that, this);
    }

    /// Ends all cuts.
    #[track_caller]
    pub fn heal(&self) {
        for host in &self.hosts {
            must(Some(&self.namespace(&host.name)), &["neigh flush dev eth0 nud permanent".to_owned()]);
        }
        self.check_whole();
    }

    /// Everyone reaches everyone.
    #[track_caller]
    fn check_whole(&self) {
        let all = self.hosts.iter().flat_map(|from| self.hosts.iter().map(move |to| (from, to)));
        let mut missing: Vec<_> = all.filter(|(from, to)| from.name != to.name).collect();
        let start = Instant::now();
        while !missing.is_empty() {
            self.send_probes(&missing);
            thread::sleep(Duration::from_millis(2));
            let arrived = self.arrived();
            missing.retain(|(from, to)| !arrived.contains(&(from.address, to.address)));
            if start.elapsed() > WHOLE {
                let names: Vec<_> = missing.iter().map(|(from, to)| format!("{} to {}", from.name, to.name)).collect();
                panic!("nothing arrives from {}", names.join(", "));
            }
        }
    }

    /// Sends one datagram for each pair; what arrived before is forgotten.
    #[track_caller]
    fn send_probes(&self, pairs: &[(&Host, &Host)]) {
        self.arrived();
        let start = Instant::now();
        for (from, to) in pairs {
            // The kernel refuses for a moment while a link comes up or its neighbours are still asked for.
            while let Err(error) = from.probe.send_to(b"probe", (to.address, PROBE_PORT)) {
                assert!(start.elapsed() < WHOLE, "{} can't send to {}: {error}", from.name, to.name);
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// From whom to whom datagrams arrived.
    fn arrived(&self) -> BTreeSet<(Ipv4Addr, Ipv4Addr)> {
        let mut pairs = BTreeSet::new();
        for to in &self.hosts {
            let mut bytes = [0; 16];
            while let Ok((_, from)) = to.probe.recv_from(&mut bytes) {
                let std::net::IpAddr::V4(from) = from.ip() else { continue };
                pairs.insert((from, to.address));
            }
        }
        pairs
    }

    #[track_caller]
    fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host `{name}`"))
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let failed: Vec<String> = named(&format!("{}-", self.name)).iter().filter_map(|name| remove(name)).collect();
        assert!(failed.is_empty() || thread::panicking(), "namespaces were left behind: {failed:?}");
    }
}

/// Runs on a thread that is in the namespace; the others stay where they are.
fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new(NAMES).join(namespace)).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Removes what a test process that was killed left behind.
fn sweep() {
    for name in named(PREFIX) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !PathBuf::from("/proc").join(pid).exists()) {
            // Another test process may sweep too.
            let _ = remove(&name);
        }
    }
}

/// All namespaces whose names begin so.
fn named(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
}

/// Why it could not be removed.
fn remove(namespace: &str) -> Option<String> {
    ip(None, &[format!("netns del {namespace}")]).err()
}

#[track_caller]
fn must(namespace: Option<&str>, commands: &[String]) {
    ip(namespace, commands).unwrap_or_else(|error| panic!("ip in {namespace:?}: {error}"));
}

/// `ip` with these commands, one a line, in a namespace.
fn ip(namespace: Option<&str>, commands: &[String]) -> Result<(), String> {
    let mut ip = Command::new("ip");
    ip.args(namespace.iter().flat_map(|namespace| ["-n", namespace])).args(["-batch", "-"]);
    ip.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ip.spawn().map_err(|error| format!("can't run `ip`: {error}"))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let lines = commands.iter().map(|command| format!("{command}\n")).collect::<String>();
    // One that ended before it read everything says why on stderr.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{told} ({})", output.status)) }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_cut_has_a_direction_and_an_end() {
        let Some(network) = Network::of(&["a", "b", "c"]) else { return };
        let reaches = |from: &str, to: &str| {
            network.send_probes(&[(network.host(from), network.host(to))]);
            thread::sleep(ARRIVAL);
            !network.arrived().is_empty()
        };
        network.cut(&["a"], &["b"]);
        assert!(!reaches("a", "b") && reaches("b", "a") && reaches("a", "c") && reaches("c", "b"));
        network.heal();
        assert!(reaches("a", "b"));
        network.split(&["a", "b"], &["c"]);
        assert!(reaches("a", "b") && !reaches("b", "c") && !reaches("c", "a"));
    }

    #[test]
    fn nothing_is_left_after_a_panic() {
        let Some(network) = Network::of(&["a", "b"]) else { return };
        let prefix = format!("{}-", network.name);
        assert_eq!(named(&prefix).len(), 3);
        catch_unwind(AssertUnwindSafe(move || {
            let _network = network;
            panic!("as a failed test does");
        }))
        .unwrap_err();
        assert_eq!(named(&prefix), Vec::<String>::new());
    }
}
