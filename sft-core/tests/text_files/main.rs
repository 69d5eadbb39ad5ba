//! Text models in files that lie, are cut short, or ask for what is not done.

mod config;
mod folders;
mod gguf;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sft_core::model::PretrainedText;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
    fixtures.join(name)
}

/// A folder of one test, empty.
fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sft-text-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The files of a fixture in a folder of one test.
fn copy(model: &str, test: &str) -> PathBuf {
    let folder = scratch(&format!("{model}-{test}"));
    for file in std::fs::read_dir(fixture(model)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    folder
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut json: Map<String, Value> = serde_json::from_str(&text).unwrap();
    edit(&mut json);
    std::fs::write(path, Value::from(json).to_string()).unwrap();
}

/// What opening says, which must name the path.
fn refusal(path: &Path) -> String {
    let error = PretrainedText::open(path).unwrap_err().to_string();
    let named = path.display().to_string();
    assert!(
        error.starts_with(&named),
        "{error} does not begin with {named}"
    );
    error
}
