//! What this process has taken of the machine's memory.

/// The most that was resident at once since the program started, bytes; nothing where the system
/// does not tell.
///
/// Linux tells it of the program's own memory. What POSIX tells, which others have, may count that
/// of the process that started the program.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    status
        .and_then(|status| high_water_mark(&status))
        .or_else(most_by_posix)
}

/// The peak in the contents of Linux's `/proc/self/status`.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(1024 * kib)
}

#[cfg(unix)]
fn most_by_posix() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    // POSIX names no unit: Apple's is the byte, everyone else's the KiB.
    let unit = if cfg!(target_vendor = "apple") {
        1
    } else {
        1024
    };
    let peak = getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss();
    Some(unit * u64::try_from(peak).ok()?)
}

#[cfg(not(unix))]
fn most_by_posix() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_is_resident() {
        let before = peak_resident_bytes().unwrap();
        let block = vec![1u8; 64 << 20];
        let size = std::hint::black_box(&block).len() as u64;
        let after = peak_resident_bytes().unwrap();
        assert!(after >= size, "{size} bytes written, {after} resident");
        assert!((1 << 20..1 << 40).contains(&before), "{before}");
    }

    #[test]
    fn the_mark_is_found_or_not() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t     12 kB\n";
        assert_eq!(high_water_mark(status), Some(2 << 20));
        for other in ["", "VmHWM:\t 3 pages\n", "VmHWM:\n", "VmRSS:\t 12 kB\n"] {
            assert_eq!(high_water_mark(other), None, "{other}");
        }
        assert!(most_by_posix().is_some());
    }
}
