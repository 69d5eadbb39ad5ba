//! GGUF files.

use candle_core::Device;
use sft_core::model::{Backend, Pooling, PretrainedText, TextModel};

use super::{fixture, refusal, scratch};

/// Bytes of a file, and what the refusal says.
type Case = (Vec<u8>, &'static str);

/// A GGUF file with other bytes after a text in its header.
fn patched(bytes: &[u8], after: &[u8], by: &[u8]) -> Vec<u8> {
    let found = bytes
        .windows(after.len())
        .position(|window| window == after);
    let from = found.expect("the text is in the file") + after.len();
    let mut patched = bytes.to_vec();
    patched[from..from + by.len()].copy_from_slice(by);
    patched
}

fn counts_and_settings(plain: &[u8]) -> Vec<Case> {
    let most = u64::MAX.to_le_bytes();
    let count = |at: usize| {
        let mut bytes = plain.to_vec();
        bytes[at..at + 8].copy_from_slice(&most);
        bytes
    };
    let many = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    vec![
        (count(8), "18446744073709551615 tensors"),
        (count(16), "18446744073709551615 settings"),
        (
            patched(plain, b"GGUF", &[9]),
            "the version must be 2 or 3, got 9",
        ),
        (
            patched(
                plain,
                b"general.architecture",
                &[8, 0, 0, 0, 255, 255, 255, 255],
            ),
            "bytes are claimed",
        ),
        (
            patched(
                plain,
                b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0",
                b"grama",
            ),
            "general.architecture must be one of llama, qwen2, qwen3, gemma3, got \"grama\"",
        ),
        (
            patched(plain, b"tokenizer.ggml.tokens\x09\0\0\0", &many(8, 1 << 40)),
            "tokenizer.ggml.tokens: an array of 1099511627776",
        ),
        (
            patched(plain, b"tokenizer.ggml.tokens\x09\0\0\0", &many(9, 2)),
            "an array of arrays",
        ),
        (
            patched(plain, b"llama.block_count", &13u32.to_le_bytes()),
            "llama.block_count: a value of type 13",
        ),
        (
            patched(plain, b"llama.block_count\x04\0\0\0", &9u32.to_le_bytes()),
            "missing tensor model.layers.2.",
        ),
        (
            patched(
                plain,
                b"llama.attention.head_count\x04\0\0\0",
                &0u32.to_le_bytes(),
            ),
            "llama.attention.head_count",
        ),
    ]
}

fn tensors(plain: &[u8]) -> Vec<Case> {
    // Rank, the dimensions, the type.
    let shape = |sides: [u64; 2], kind: u32, offset: u64| {
        let sides = sides.map(u64::to_le_bytes).concat();
        [
            &2u32.to_le_bytes()[..],
            &sides,
            &kind.to_le_bytes(),
            &offset.to_le_bytes(),
        ]
        .concat()
    };
    let up = b"blk.0.ffn_up.weight";
    vec![
        (
            patched(plain, up, &shape([32, 32], 16, 0)),
            "tensor blk.0.ffn_up.weight is of ggml's type 16",
        ),
        (
            patched(plain, up, &shape([u64::MAX, u64::MAX], 0, 0)),
            "tensor blk.0.ffn_up.weight of shape",
        ),
        (
            patched(plain, up, &shape([32, 32], 0, u64::MAX)),
            "tensor blk.0.ffn_up.weight of shape",
        ),
        (
            patched(plain, up, &shape([32, 32], 0, 1 << 40)),
            "tensor blk.0.ffn_up.weight of shape",
        ),
        (
            patched(plain, up, &shape([33, 32], 2, 0)),
            "has rows of 33, expected a multiple of Q4_0's 32",
        ),
        (
            patched(plain, up, &shape([32, 31], 0, 0)),
            "has shape [31, 32], expected [32, 32]",
        ),
        (
            patched(plain, up, &0u32.to_le_bytes()),
            "tensor blk.0.ffn_up.weight has 0 dimensions",
        ),
        (plain[..plain.len() - 64].to_vec(), "ends after the file"),
    ]
}

#[test]
fn gguf_files_that_lie_are_refused_with_the_tensor_or_the_setting() {
    let folder = scratch("gguf");
    let path = folder.join("model.gguf");
    let plain = std::fs::read(fixture("llama.gguf")).unwrap();
    for (bytes, wanted) in counts_and_settings(&plain)
        .into_iter()
        .chain(tensors(&plain))
    {
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains(wanted), "{error} does not say {wanted}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Alignments are settings that this file does not have: they take another's place.
#[test]
fn alignments_that_are_no_power_of_two_are_refused() {
    let folder = scratch("alignment");
    let path = folder.join("model.gguf");
    let plain = std::fs::read(fixture("llama.gguf")).unwrap();
    let name = b"llama.context_length";
    let at = plain
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    for alignment in [0u32, 24] {
        // "general.alignment" is three bytes shorter: a general.architecture goes before it.
        let mut bytes = plain[..at - 8].to_vec();
        bytes.extend(17u64.to_le_bytes());
        bytes.extend(b"general.alignment");
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(alignment.to_le_bytes());
        bytes.extend(&plain[at + name.len() + 8..]);
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        let wanted = format!("general.alignment must be a power of two, got {alignment}");
        assert!(error.contains(&wanted), "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn cut_or_flipped_gguf_files_never_panic() {
    let folder = scratch("flipped");
    let path = folder.join("model.gguf");
    let plain = std::fs::read(fixture("llama.gguf")).unwrap();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let model = PretrainedText::open(&path)?;
        let backend = Backend::Candle(Device::Cpu);
        let made = TextModel::new(&model.config, &model.weights, Pooling::Last, backend)?;
        Ok::<_, sft_core::Error>(made.bytes())
    };
    assert!(open(&plain).is_ok());
    for len in (0..plain.len() - 32).step_by(149) {
        assert!(open(&plain[..len]).is_err(), "{len} bytes");
    }
    let tensors = b"rope_freqs.weight";
    let tensors = plain
        .windows(17)
        .position(|window| window == tensors)
        .unwrap();
    let header = (0..1200).chain(tensors - 8..tensors + 1600);
    for at in header.step_by(3) {
        for bit in [0, 5, 7] {
            let mut bytes = plain.clone();
            bytes[at] ^= 1 << bit;
            let _ = open(&bytes);
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}
