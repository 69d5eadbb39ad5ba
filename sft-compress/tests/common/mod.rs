//! The golden vectors of `tests/golden`: each line of `cases.tsv` is an input,
//! the settings, the frame (`NAME.sft`) and the decoded elements (`NAME.f32`).

#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::path::{Path, PathBuf};

use sft_compress::{Codec, Range, TensorView};

/// One line of `cases.tsv`.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) input: Vec<f32>,
    pub(crate) shape: Vec<usize>,
    pub(crate) codec: Codec,
    pub(crate) seed: u64,
}

impl Case {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let view = TensorView::new(&self.input, &self.shape).unwrap();
        self.codec.encode(view, self.seed).unwrap()
    }

    pub(crate) fn frame_path(&self) -> PathBuf {
        golden().join(format!("{}.sft", self.name))
    }

    pub(crate) fn output_path(&self) -> PathBuf {
        golden().join(format!("{}.f32", self.name))
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        fs::read(self.frame_path()).unwrap()
    }

    pub(crate) fn output(&self) -> Vec<f32> {
        read_f32(&self.output_path())
    }
}

pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(crate) fn cases() -> Vec<Case> {
    let table = fs::read_to_string(golden().join("cases.tsv")).unwrap();
    table.lines().skip(1).map(parse).collect()
}

fn parse(line: &str) -> Case {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, input, shape, codec, keep, levels, range, seed] = fields[..] else {
        panic!("not eight fields: {line}");
    };
    let codec = match codec {
        "raw" => Codec::raw(),
        "paper" => Codec::paper(keep.parse().unwrap(), levels.parse().unwrap()).unwrap(),
        other => panic!("unknown codec {other}"),
    };
    let range = if range == "row" {
        Range::Row
    } else {
        Range::Tensor
    };
    Case {
        name: name.to_owned(),
        input: read_f32(&golden().join(format!("inputs/{input}.f32"))),
        shape: shape.split('x').map(|dim| dim.parse().unwrap()).collect(),
        codec: codec.with_range(range),
        seed: seed.parse().unwrap(),
    }
}

fn read_f32(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// CRC-32 bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        }
    }
    !crc
}

/// Puts a body into an envelope of version 1.
pub(crate) fn seal(body: &[u8]) -> Vec<u8> {
    let mut frame = b"SFTZ\x01".to_vec();
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(body);
    frame.extend(crc32(&frame).to_le_bytes());
    frame
}

/// The body in an envelope.
pub(crate) fn body(frame: &[u8]) -> &[u8] {
    &frame[9..frame.len() - 4]
}
