//! Tensors, and the golden vectors of `tests/golden`: each line of `cases.tsv` and `context.tsv` is an input,
//! the settings, the frame (`NAME.sft`) and the decoded elements (`NAME.f32`).

#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::path::{Path, PathBuf};

use sft_compress::{
    Code, Codec, Config, Dtype, Elements, NonFinite, Quantize, Range, Rounding, Spacing, Sparsify,
    Tensor, TensorView, decode,
};

/// One line of `cases.tsv` or `context.tsv`.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) input: Vec<f32>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) codec: Codec,
    pub(crate) seed: u64,
}

impl Case {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let tensor = self.tensor();
        let bits: Vec<u16> = match self.dtype {
            Dtype::F32 => Vec::new(),
            Dtype::F16 => tensor.to_f16_bits(),
            Dtype::Bf16 => tensor.to_bf16_bits(),
        };
        let elements = match self.dtype {
            Dtype::F32 => Elements::F32(&self.input),
            Dtype::F16 => Elements::F16(&bits),
            Dtype::Bf16 => Elements::Bf16(&bits),
        };
        let view = TensorView::of(elements, &self.shape).unwrap();
        self.codec.encode(view, self.seed).unwrap()
    }

    /// The input as an owned tensor.
    fn tensor(&self) -> Tensor {
        let view = TensorView::new(&self.input, &self.shape).unwrap();
        decode(&Codec::raw().encode(view, 0).unwrap()).unwrap()
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
    let lines = |file: &str| fs::read_to_string(golden().join(file)).unwrap();
    let (paper, context) = (lines("cases.tsv"), lines("context.tsv"));
    let paper = paper.lines().skip(1).map(parse);
    paper
        .chain(context.lines().skip(1).map(parse_context))
        .collect()
}

fn parse_shape(shape: &str) -> Vec<usize> {
    shape.split('x').map(|dim| dim.parse().unwrap()).collect()
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
        dtype: Dtype::F32,
        shape: parse_shape(shape),
        codec: codec.with_range(range),
        seed: seed.parse().unwrap(),
    }
}

fn parse_context(line: &str) -> Case {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, input, dtype, shape, codec, seed] = fields[..] else {
        panic!("not six fields: {line}");
    };
    let dtype = match dtype {
        "f32" => Dtype::F32,
        "f16" => Dtype::F16,
        "bf16" => Dtype::Bf16,
        other => panic!("unknown type {other}"),
    };
    Case {
        name: name.to_owned(),
        input: read_f32(&golden().join(format!("inputs/{input}.f32"))),
        dtype,
        shape: parse_shape(shape),
        codec: parse_codec(&codec.split(' ').collect::<Vec<_>>()),
        seed: seed.parse().unwrap(),
    }
}

/// A named codec with its arguments, or a combination that has no name.
fn parse_codec(words: &[&str]) -> Codec {
    let number = |word: &str| -> f64 { word.parse().unwrap() };
    let mut config = Config::default();
    match *words {
        ["raw"] => return Codec::raw(),
        ["activation", keep, levels] => {
            return Codec::activation(number(keep), number(levels) as u32).unwrap();
        }
        ["gradient", keep, levels] => {
            return Codec::gradient(number(keep), number(levels) as u32).unwrap();
        }
        ["dead_zone", step] => return Codec::dead_zone(number(step)).unwrap(),
        ["unbiased", step] => return Codec::unbiased(number(step)).unwrap(),
        ["error", error] => return Codec::for_error(number(error)).unwrap(),
        ["paper+context", keep, levels] => {
            config = *Codec::paper(number(keep), number(levels) as u32)
                .unwrap()
                .config();
            config.code = Code::Context;
        }
        ["log+row+nearest", keep, levels] => {
            config.sparsify = Sparsify::TopK(number(keep));
            config.quantize = Quantize::Levels {
                count: number(levels) as u32,
                spacing: Spacing::Log,
                rounding: Rounding::Nearest,
                range: Range::Row,
            };
        }
        ["row_top_k+f16", keep] => {
            config.sparsify = Sparsify::RowTopK(number(keep));
            config.quantize = Quantize::F16;
        }
        ["threshold+exact", threshold] => {
            config.sparsify = Sparsify::Threshold(number(threshold) as f32);
            config.quantize = Quantize::None;
        }
        ["saturate+exact"] => {
            config.sparsify = Sparsify::None;
            config.quantize = Quantize::None;
            config.non_finite = NonFinite::Saturate;
        }
        _ => panic!("unknown codec {words:?}"),
    }
    Codec::new(config).unwrap()
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

/// Numbers of which few are large, always the same.
pub(crate) fn uneven(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        f32::from((state >> 16) as u16) / 65_536.0 - 0.5
    };
    (0..len).map(|_| (uniform() + uniform()).powi(3)).collect()
}

pub(crate) fn view<'a>(data: &'a [f32], shape: &'a [usize]) -> TensorView<'a> {
    TensorView::new(data, shape).unwrap()
}
