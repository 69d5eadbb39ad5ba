//! The `sft` program: a server and devices as processes of this machine.
#![cfg(unix)]

mod common;

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::Folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sft_core::run::{RunConfig, RunFile, Session};
use sft_examples::input;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(2);

/// A folder with certificates, the processes that use them and what they write.
struct Network {
    folder: Folder,
    port: u16,
    running: Vec<Child>,
}

impl Network {
    fn new(name: &str, devices: usize) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self {
            port: free.local_addr().unwrap().port(),
            folder: Folder::new(name),
            running: Vec::new(),
        };
        let certs = network.folder.join("certs");
        let made = sft(&["certs", "--out", &certs, "--devices", &devices.to_string()]);
        assert!(made.status.success());
        network
    }

    /// Starts a process whose output goes to a file; its place among those that run.
    fn start(&mut self, name: &str, arguments: &[&str]) -> usize {
        let path = self.folder.0.join(format!("{name}.log"));
        let log = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sft"))
            .args(arguments)
            .env("RUST_LOG", "sft_core=info")
            .env("NO_COLOR", "1")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.running.push(child.unwrap());
        self.running.len() - 1
    }

    fn server(&mut self, more: &[&str]) -> usize {
        let (listen, certs) = (
            format!("127.0.0.1:{}", self.port),
            self.folder.join("certs"),
        );
        let out = self.folder.join("edge");
        let own = [
            "server", "--listen", &listen, "--certs", &certs, "--out", &out,
        ];
        self.start("server", &[&own, more].concat())
    }

    fn device(&mut self, number: usize) -> usize {
        let server = format!("127.0.0.1:{}", self.port);
        let (certs, cache) = (
            self.folder.join(&format!("certs/device-{number}")),
            self.folder.join("cache"),
        );
        let own = [
            "device", "--server", &server, "--certs", &certs, "--cache", &cache,
        ];
        self.start(&format!("device-{number}"), &own)
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.0.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until the server said something so often.
    fn wait_for(&self, text: &str, count: usize) {
        let until = Instant::now() + PATIENCE;
        while self.log("server").matches(text).count() < count {
            let log = self.log("server");
            assert!(Instant::now() < until, "{count} times {text:?} in {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, process: usize, signal: Signal) {
        kill(
            Pid::from_raw(self.running[process].id().cast_signed()),
            signal,
        )
        .unwrap();
    }

    /// Waits until a process ends; whether it did well.
    fn end(&mut self, process: usize) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.running[process].try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < until, "{}", self.log("server"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn run(&self) -> RunFile {
        RunFile::read(&self.folder.0.join("edge").join(RunFile::NAME)).unwrap()
    }

    fn adapters(&self) -> Vec<u8> {
        std::fs::read(
            self.folder
                .join("edge/adapters-sft/adapter_model.safetensors"),
        )
        .unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn sft(arguments: &[&str]) -> std::process::Output {
    let program = Command::new(env!("CARGO_BIN_EXE_sft"))
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    program.unwrap()
}

/// Checks a network's run against the same in memory, bit for bit.
fn assert_is_the_run_in_memory(network: &Network, config: &RunConfig) {
    let memory = network.folder.0.join("memory");
    let config = RunConfig {
        out: Some(memory.clone()),
        data: Some("digits".into()),
        ..config.clone()
    };
    let inputs = input::open(&config).unwrap();
    let session = Session::new(&config, &inputs).unwrap();
    let runs = session.run(&(), &false.into()).unwrap();
    let told = |rounds: &[sft_core::run::RoundRecord]| {
        let records = rounds.iter().cloned().map(|mut record| {
            record.wall_s = 0.0;
            record
        });
        records.collect::<Vec<_>>()
    };
    let run = network.run();
    assert_eq!(told(&run.schemes[0].rounds), told(&runs[0].rounds));
    let want = std::fs::read(memory.join("adapters-sft/adapter_model.safetensors"));
    assert!(network.adapters() == want.unwrap());
}

fn config(devices: usize, rounds: usize) -> RunConfig {
    let config = RunConfig::from_toml("scheme = ['sft']").unwrap();
    RunConfig {
        devices,
        rounds,
        ..config
    }
}

#[test]
fn three_commands_are_the_run_in_memory() {
    let mut network = Network::new("equal", 3);
    let server = network.server(&["--devices", "3", "--rounds", "2"]);
    let devices = [0, 1, 2].map(|number| network.device(number));
    assert!(network.end(server), "{}", network.log("server"));
    for device in devices {
        assert!(network.end(device), "{}", network.log("device-0"));
    }
    assert_is_the_run_in_memory(&network, &config(3, 2));
    let log = network.log("device-1");
    assert!(
        log.contains("device 1 with") && log.contains("the run is over"),
        "{log}"
    );
    // Its half is kept under its digest, and holds two of the model's blocks.
    let half = std::fs::read_dir(network.folder.join("cache"))
        .unwrap()
        .next();
    let file = half.unwrap().unwrap().path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let has = |block| {
        tensors
            .keys()
            .any(|name| name.contains(&format!("layer.{block}.")))
    };
    assert!(has(1) && !has(2));
}

#[test]
fn devices_that_are_killed_or_stopped_come_back() {
    let mut network = Network::new("drop", 4);
    let server = network.server(&["--devices", "4", "--rounds", "9"]);
    let devices = [0, 1, 2, 3].map(|number| network.device(number));
    network.wait_for("round begins", 2);
    network.signal(devices[1], Signal::SIGKILL);
    network.signal(devices[2], Signal::SIGSTOP);
    network.wait_for("device lost", 2);
    network.signal(devices[2], Signal::SIGCONT);
    let again = network.device(1);
    for process in [server, devices[0], devices[2], devices[3], again] {
        assert!(network.end(process), "{}", network.log("server"));
    }
    let rounds = &network.run().schemes[0].rounds;
    assert_eq!(rounds.len(), 9);
    for record in rounds {
        let mut all = [record.devices.clone(), record.late.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3], "round {}", record.round);
        assert!(record.devices.contains(&0) && record.devices.contains(&3));
    }
    assert!(rounds.iter().any(|record| record.late.contains(&1)));
    assert!(rounds.iter().any(|record| record.late.contains(&2)));
}

#[test]
fn a_server_that_was_killed_goes_on_as_if_it_had_not_been() {
    let mut network = Network::new("resume", 2);
    let flags = ["--devices", "2", "--rounds", "4"];
    let killed = network.server(&flags);
    let devices = [0, 1].map(|number| network.device(number));
    network.wait_for("round begins", 3);
    network.signal(killed, Signal::SIGKILL);
    network.end(killed);
    let edge = network.folder.join("edge");
    let server = network.server(&[&flags[..], &["--resume", &edge]].concat());
    for process in [server, devices[0], devices[1]] {
        assert!(network.end(process), "{}", network.log("server"));
    }
    assert_is_the_run_in_memory(&network, &config(2, 4));
}

#[test]
fn a_device_that_is_not_of_the_run_is_told_so_and_the_others_go_on() {
    let mut network = Network::new("stranger", 3);
    let server = network.server(&["--devices", "2", "--rounds", "1"]);
    let stranger = network.device(2);
    assert!(!network.end(stranger));
    let log = network.log("device-2");
    assert!(
        log.contains("is device 2, the run has devices 0 to 1"),
        "{log}"
    );
    let without = network.start(
        "plain",
        &[
            "device",
            "--server",
            &format!("127.0.0.1:{}", network.port),
            "--patience-s",
            "1",
        ],
    );
    assert!(!network.end(without));
    let devices = [0, 1].map(|number| network.device(number));
    for process in [server, devices[0], devices[1]] {
        assert!(network.end(process), "{}", network.log("server"));
    }
    assert_is_the_run_in_memory(&network, &config(2, 1));
}

#[test]
fn flags_that_do_not_fit_are_told() {
    let folder = Folder::new("flags");
    let out = folder.join("out");
    for (arguments, said) in [
        (
            &["server", "--listen", "0.0.0.0:0"][..],
            "--certs must be given",
        ),
        (&["server", "--listen", "nowhere"], "--listen cannot be"),
        (
            &["server", "--quorum", "9"],
            "--quorum must be in 1..=8, got 9",
        ),
        (
            &["server", "--scheme", "fl-lora"],
            "--scheme must be sft, sft-raw or sl",
        ),
        (&["server", "--scheme", "sft,sl"], "--scheme must be one"),
        (&["server", "--certs", "/there/is/none"], "/there/is/none"),
        (
            &["device", "--server", "here"],
            "--server must be host:port",
        ),
        (
            &["device", "--server", "192.0.2.1:1"],
            "--certs must be given",
        ),
        (
            &["certs", "--devices", "0", "--out", &out],
            "--devices must be at least 1",
        ),
    ] {
        let mut arguments = arguments.to_vec();
        if arguments[0] == "server" {
            arguments.extend(["--out", &out, "--wait-s", "0"]);
            if !arguments.contains(&"--listen") {
                arguments.extend(["--listen", "127.0.0.1:0"]);
            }
        }
        let output = sft(&arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains(said),
            "{arguments:?}: {told}"
        );
    }
}
