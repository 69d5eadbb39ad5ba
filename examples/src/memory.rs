//! What this process has taken of the machine's memory.

/// The most that was resident at once since the process started, bytes; nothing where the system
/// does not tell.
#[cfg(unix)]
pub fn peak_resident_bytes() -> Option<u64> {
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

/// The most that was resident at once since the process started, bytes; nothing where the system
/// does not tell.
#[cfg(not(unix))]
pub fn peak_resident_bytes() -> Option<u64> {
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
}
