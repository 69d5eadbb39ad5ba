//! Running the examples that cargo built beside the tests.
#![allow(unreachable_pub)]
#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The example that cargo built beside this test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// A folder of its own that goes away with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        /// Tests of one process run at the same time, some with the same name.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("sft-cli-{name}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn join(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first 200 digits, so that a round takes no time.
pub fn digits(folder: &Folder) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits.bin");
    let bytes = std::fs::read(data).unwrap();
    let path = folder.join("digits.bin");
    std::fs::write(&path, &bytes[..200 * 65]).unwrap();
    format!("digits:{path}")
}

/// Runs `vit_finetune` with this output folder.
pub fn vit_finetune(out: &str, flags: &[&str]) -> Output {
    finetune("vit_finetune", out, flags)
}

/// Runs one of the programs that fine-tune with this output folder.
pub fn finetune(name: &str, out: &str, flags: &[&str]) -> Output {
    Command::new(program(name))
        .args(["--out", out])
        .args(flags)
        .output()
        .unwrap()
}

/// One line on standard error, exit code 1, no output folder.
pub fn refused(flags: &[&str], message: &str) {
    refused_by("vit_finetune", flags, message);
}

/// The same of one of the programs that fine-tune.
pub fn refused_by(name: &str, flags: &[&str], message: &str) {
    let folder = Folder::new("refused");
    let out = folder.join("out");
    let output = finetune(name, &out, flags);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{flags:?}: {error}");
    assert!(error.contains(message), "{flags:?} said {error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(output.stdout.is_empty());
    assert!(!Path::new(&out).exists(), "{flags:?} left a folder");
}

/// What four schemes leave in a folder: pictures of all of them, and no other files than the documented.
pub fn assert_pictures(out: &str) {
    for picture in ["accuracy_over_time.svg", "accuracy_over_traffic.svg"] {
        let svg = std::fs::read_to_string(Path::new(out).join(picture)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("SFT without compression"));
    }
    let files = std::fs::read_dir(out).unwrap().count();
    assert_eq!(
        files, 7,
        "run.json, four adapters, two pictures and nothing else"
    );
}
