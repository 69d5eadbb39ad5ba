//! Links between two processes over loopback with certificates: exchanges of a small message and of
//! 2 MiB, and what one more connection costs a server.
#![allow(clippy::print_stdout, reason = "a benchmark")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use sft_core::net::{Identity, Link, LinkLimits, Listener, connect, make_certificates};

/// Connections that the memory of one is told by.
const CONNECTIONS: usize = 64;
/// Tells a process that it is the server, with the folder of its certificates.
const ECHO: &str = "SFT_BENCH_ECHO";

/// A folder with certificates, removed at the end.
struct Certs(PathBuf);

impl Certs {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sft-bench-link-{}", std::process::id()));
        make_certificates(&folder, 1, &[], 1).expect("a folder that can be written");
        Self(folder)
    }
}

impl Drop for Certs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server in a process of its own, which sends back what it gets.
fn echo(certs: &Path) {
    let server = Identity::open(&certs.join("server")).expect("certificates");
    let listener = Listener::bind("127.0.0.1:0", Some(&server), LinkLimits::default());
    let listener = listener.expect("a free port");
    println!("{}", listener.address());
    let mut links = 0;
    loop {
        let until = Instant::now() + Duration::from_mins(1);
        let Ok(Some(link)) = listener.accept_until(until) else {
            return;
        };
        links += 1;
        std::thread::spawn(move || {
            while let Ok(message) = link.receive() {
                let answer = if message.is_empty() {
                    resident_bytes().to_le_bytes().to_vec()
                } else {
                    message
                };
                if link.send(answer).is_err() {
                    break;
                }
            }
        });
        assert!(links < 10_000, "links without end");
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.map_or(0, |pages: usize| 4096 * pages)
}

fn exchanges(criterion: &mut Criterion) {
    let certs = Certs::new();
    let device = Identity::open(&certs.0.join("device-0")).expect("certificates");
    let mut server = Command::new(std::env::current_exe().expect("a program"))
        .env(ECHO, &certs.0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut address = String::new();
    let told = BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut address);
    told.expect("the address");
    let open = || connect(address.trim(), Some(&device), &LinkLimits::default()).expect("a link");
    let here = open();
    let memory = || {
        here.send(Vec::new()).expect("a link");
        let bytes = here.receive().expect("a link");
        usize::from_le_bytes(bytes.try_into().expect("a number"))
    };
    let before = memory();
    let more: Vec<Link> = (0..CONNECTIONS).map(|_| open()).collect();
    let each = memory().saturating_sub(before) / more.len();
    println!("one more connection, and a thread for it, takes {each} bytes of the server");
    drop(more);
    let mut group = criterion.benchmark_group("exchange");
    group.measurement_time(Duration::from_secs(4));
    for (name, bytes) in [("100 B up and down", 100), ("2 MiB up and down", 2 << 20)] {
        let message = vec![7u8; bytes];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                here.send(message.clone()).expect("a link");
                assert_eq!(here.receive().expect("a link").len(), bytes);
            });
        });
    }
    group.finish();
    let _ = server.kill();
    let _ = server.wait();
}

criterion_group!(benches, exchanges);

fn main() {
    if let Some(certs) = std::env::var_os(ECHO) {
        echo(Path::new(&certs));
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
