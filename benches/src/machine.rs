//! What a result depends on, and what a process takes.

use std::process::Command;

/// The processor with its widest vector instructions, and how many cores there are.
pub fn processor() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let widest = ["avx512f", "avx2"]
        .into_iter()
        .find(|flag| cpu.contains(flag));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{} with {}, {cores} shared cores",
        model.unwrap_or("unknown processor"),
        widest.unwrap_or("no vector instructions known of")
    )
}

/// Names and locked versions of these crates.
pub fn versions(names: &[&str]) -> String {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &&str| {
        let start = format!("name = \"{name}\"\nversion = \"");
        let rest = lock.split_once(&start).map_or("?\"", |(_, rest)| rest);
        format!("{name} {}", rest.split('"').next().unwrap_or("?"))
    };
    names.iter().map(version).collect::<Vec<_>>().join(", ")
}

/// What the compiler calls itself.
pub fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The resident set of this process.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Now.
    pub now_bytes: u64,
    /// The most since the start of the process or [`Resident::forget_peak`].
    pub peak_bytes: u64,
}

impl Resident {
    /// Reads it from `/proc`.
    ///
    /// # Errors
    /// A system without it.
    pub fn read() -> std::io::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status")?)
            .ok_or_else(|| std::io::Error::other("/proc/self/status has no VmRSS or VmHWM"))
    }

    /// Makes the peak what is resident now.
    ///
    /// # Errors
    /// A system that does not allow it.
    pub fn forget_peak() -> std::io::Result<()> {
        std::fs::write("/proc/self/clear_refs", "5")
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(1024 * kib)
        };
        Some(Self {
            now_bytes: bytes("VmRSS:")?,
            peak_bytes: bytes("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_in_kib() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t     12 kB\n";
        let resident = Resident::parse(status).unwrap();
        assert_eq!(
            (resident.now_bytes, resident.peak_bytes),
            (12_288, 2_097_152)
        );
        assert!(Resident::parse("VmRSS:\t12 kB\n").is_none());
    }

    #[test]
    fn a_locked_version_is_a_number() {
        assert!(versions(&["sft-core"]).starts_with("sft-core 0."));
        assert_eq!(versions(&["no-such-crate"]), "no-such-crate ?");
    }
}
