//! Whoever speaks nonsense to a port disturbs nobody.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use e2e::{Grid, Options, text};

/// Deterministic nonsense.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Sends and waits until the other side hangs up or says nothing for a moment.
fn send(address: &SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    // It may hang up at any byte.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 1024]);
}

#[test]
fn garbage_on_every_port_disturbs_nobody() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let running = grid.submit_shell(&[], "sleep 3; echo fine");
    let before = grid.status();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for process in before["processes"].as_array().unwrap() {
        for listener in process["listeners"].as_array().unwrap() {
            let address = text(listener, "address");
            let address = address.split_once("://").map_or(address, |(_, rest)| rest);
            addresses.push(address.parse().unwrap());
        }
    }
    assert_eq!(addresses.len(), 10, "three of each coordinator, and the endpoint of S3");
    let hello = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &noise(200, 7)].concat();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &noise(4096, 9)].concat();
    for address in &addresses {
        send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        send(address, &noise(64, 1));
        send(address, &noise(1 << 20, 2));
        send(address, &hello);
        send(address, &preface);
        send(address, &[]);
    }
    // Many that say nothing at all, and stay.
    let idle: Vec<TcpStream> =
        addresses.iter().flat_map(|address| (0..20).map(move |_| TcpStream::connect(address).unwrap())).collect();
    grid.put("garbage/in.txt", "still served\n");
    let output = grid.millgrid(["run", "--in", "s3://dev/garbage/in.txt", "--", "cat", "in.txt"]).ok();
    assert_eq!(output.stdout, "still served\n");
    grid.millgrid(["wait", &running.to_string()]).ok();
    drop(idle);
    let pids = |status: &serde_json::Value| {
        let processes = status["processes"].as_array().unwrap().clone();
        processes.iter().map(|process| process["pid"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(pids(&grid.status()), pids(&before), "nothing died of it");
}
