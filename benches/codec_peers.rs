//! `sft-compress` beside other codecs in one run: size, error and speed on tensors of yours.
//!
//! ```text
//! cargo bench -p sft-benches --bench codec_peers -- FILE.npy ...
//! ```
//!
//! `make codec-peers` does it with the Python peers too. Rust peers run here; with `SFT_PEERS_PYTHON` set to a Python that has numpy and torch,
//! `codec_peers.py` is run on the same files. Prints one Markdown table a tensor. Without files,
//! a small synthetic tensor is taken.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use constriction::stream::Decode;
use constriction::stream::model::DefaultContiguousCategoricalEntropyModel as Frequencies;
use constriction::stream::stack::DefaultAnsCoder;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use ndarray_npy::{read_npy, write_npy};
use sft_benches::Outcome;
use sft_benches::machine::{processor, versions};
use sft_compress::{
    Code, Codec, Config, Decoder, Encoder, Energy, Quantize, Tensor, TensorView, measure,
};

const KEEP: f64 = 0.2;
const LEVELS: u16 = 8;
const SEED: u64 = 1;

/// One codec on one tensor.
struct Row {
    name: String,
    ours: bool,
    bytes: usize,
    relative_mse: f64,
    encode_gbps: f64,
    decode_gbps: f64,
}

fn main() -> Outcome<()> {
    let files: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    header();
    if files.is_empty() {
        let file = std::env::temp_dir().join(format!("sft-peers-{}.npy", std::process::id()));
        write_npy(&file, &synthetic())?;
        let outcome = compare(&file);
        std::fs::remove_file(file)?;
        return outcome;
    }
    files.iter().try_for_each(|file| compare(Path::new(file)))
}

/// What the results depend on.
fn header() {
    let names = [
        "sft-compress",
        "zstd",
        "lz4_flex",
        "pco",
        "constriction",
        "half",
    ];
    println!("# Codecs and their peers\n");
    println!(
        "`make codec-peers`: keep {KEEP}, {LEVELS} levels, one thread, GB/s of f32, median times."
    );
    println!("{}.", processor());
    println!("{}.\n", versions(&names));
    println!("*Ahead in* tells where a peer beats the `sft` row of highest ratio among those with");
    println!("no more error than the peer.");
}

/// Bell-shaped, every 48th channel an outlier.
fn synthetic() -> ndarray::Array2<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    ndarray::Array2::from_shape_fn((64, 192), |(_, channel)| {
        let bell = uniform() + uniform() + uniform();
        bell * if channel % 48 == 0 { 6.0 } else { 1.0 }
    })
}

fn compare(file: &Path) -> Outcome<()> {
    let array: ndarray::ArrayD<f32> = read_npy(file)?;
    let tensor = TensorView::of_array(&array)?;
    let data = array.as_slice().ok_or("not in row-major order")?;
    let mut rows = ours(tensor)?;
    rows.extend(lossless(data)?);
    rows.extend(casts(data)?);
    rows.push(by_constriction(tensor)?);
    rows.extend(python(file, data.len())?);
    print(file, &array, &rows);
    Ok(())
}

fn ours(tensor: TensorView<'_>) -> Outcome<Vec<Row>> {
    let levels = u32::from(LEVELS);
    let paper = Codec::paper(KEEP, levels)?;
    let dense = |quantize| Codec::new(Config::default().with_quantize(quantize));
    let error = measure(paper, tensor, SEED)?.relative_mse;
    let codecs = [
        ("paper", paper),
        (
            "paper+context",
            Codec::new(paper.config().with_code(Code::Context))?,
        ),
        ("activation", Codec::activation(KEEP, levels)?),
        ("gradient", Codec::gradient(KEEP, levels)?),
        (
            "dead_zone@paper",
            Codec::for_error(error.clamp(1e-6, 0.75))?.with_energy(Energy::All),
        ),
        ("error:0.01", Codec::for_error(0.01)?),
        ("error:0.05", Codec::for_error(0.05)?),
        ("f16+context", dense(Quantize::F16)?),
        ("exact+context", dense(Quantize::None)?),
        ("raw", Codec::raw()),
    ];
    codecs
        .into_iter()
        .map(|(name, codec)| our_row(name, codec, tensor))
        .collect()
}

fn our_row(name: &str, codec: Codec, tensor: TensorView<'_>) -> Outcome<Row> {
    let (mut encoder, mut decoder) = (Encoder::new(codec), Decoder::new());
    let (mut frame, mut decoded) = (Vec::new(), Tensor::default());
    let encode_s = median_s(|| Ok(encoder.encode_into(tensor, SEED, &mut frame)?))?;
    let decode_s = median_s(|| Ok(decoder.decode_into(&frame, &mut decoded)?))?;
    let data = tensor.elements().to_f32();
    let row = row(
        &format!("sft {name}"),
        &data,
        frame.len(),
        decoded.data(),
        [encode_s, decode_s],
    );
    Ok(Row { ours: true, ..row })
}

fn row(name: &str, data: &[f32], bytes: usize, decoded: &[f32], times_s: [f64; 2]) -> Row {
    let power = |x: f64| x * x;
    let pairs = data.iter().zip(decoded);
    let error: f64 = pairs
        .map(|(&x, &y)| power(f64::from(x) - f64::from(y)))
        .sum();
    let whole: f64 = data.iter().map(|&x| power(f64::from(x))).sum();
    let [encode_gbps, decode_gbps] = times_s.map(|time_s| size_of_val(data) as f64 / time_s / 1e9);
    Row {
        name: name.to_owned(),
        ours: false,
        bytes,
        relative_mse: error / whole,
        encode_gbps,
        decode_gbps,
    }
}

/// The median time of repetitions over half a second, three at least, after one to warm up;
/// no more than those as a test, when cargo does not say that this is a benchmark.
fn median_s(mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let span_s = if std::env::args().any(|arg| arg == "--bench") {
        0.5
    } else {
        0.0
    };
    work()?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || begin.elapsed().as_secs_f64() < span_s {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// A peer as a pair of functions.
fn peer<T: Default>(
    name: &str,
    data: &[f32],
    encode: impl Fn() -> Outcome<T>,
    bytes: impl Fn(&T) -> usize,
    decode: impl Fn(&T) -> Outcome<Vec<f32>>,
) -> Outcome<Row> {
    let (mut coded, mut decoded) = (T::default(), Vec::new());
    let encode_s = median_s(|| {
        coded = encode()?;
        Ok(())
    })?;
    let decode_s = median_s(|| {
        decoded = decode(&coded)?;
        Ok(())
    })?;
    Ok(row(
        name,
        data,
        bytes(&coded),
        &decoded,
        [encode_s, decode_s],
    ))
}

fn lossless(data: &[f32]) -> Outcome<Vec<Row>> {
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let floats = |bytes: Vec<u8>| {
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|word| f32::from_le_bytes(*word)).collect()
    };
    let mut rows = Vec::new();
    for level in [1, 3, 19] {
        rows.push(peer(
            &format!("f32, zstd {level}"),
            data,
            || Ok(zstd::bulk::compress(&bytes, level)?),
            Vec::len,
            |coded| Ok(floats(zstd::bulk::decompress(coded, bytes.len())?)),
        )?);
    }
    rows.push(peer(
        "f32, lz4_flex",
        data,
        || Ok(lz4_flex::compress_prepend_size(&bytes)),
        Vec::len,
        |coded| Ok(floats(lz4_flex::decompress_size_prepended(coded)?)),
    )?);
    rows.push(peer(
        "f32, pco",
        data,
        || {
            Ok(pco::standalone::simple_compress(
                data,
                &pco::ChunkConfig::default(),
            )?)
        },
        Vec::len,
        |coded| Ok(pco::standalone::simple_decompress(coded)?),
    )?);
    Ok(rows)
}

fn casts(data: &[f32]) -> Outcome<Vec<Row>> {
    let to_f16 = || {
        let mut bits = vec![0_u16; data.len()];
        bits.reinterpret_cast_mut::<f16>()
            .convert_from_f32_slice(data);
        bits
    };
    let from_f16 = |bits: &[u16]| Ok(bits.reinterpret_cast::<f16>().to_f32_vec());
    let to_bf16 = || {
        let mut bits = vec![0_u16; data.len()];
        bits.reinterpret_cast_mut::<bf16>()
            .convert_from_f32_slice(data);
        bits
    };
    let size = |bits: &Vec<u16>| 2 * bits.len();
    let as_bytes =
        |bits: &[u16]| -> Vec<u8> { bits.iter().flat_map(|b| b.to_le_bytes()).collect() };
    Ok(vec![
        peer(
            "f16 cast",
            data,
            || Ok(to_f16()),
            size,
            |bits| from_f16(bits),
        )?,
        peer(
            "bf16 cast",
            data,
            || Ok(to_bf16()),
            size,
            |bits| Ok(bits.reinterpret_cast::<bf16>().to_f32_vec()),
        )?,
        peer(
            "f16 cast, zstd 3",
            data,
            || Ok(zstd::bulk::compress(&as_bytes(&to_f16()), 3)?),
            Vec::len,
            |coded| {
                let bytes = zstd::bulk::decompress(coded, 2 * data.len())?;
                let words = bytes.as_chunks::<2>().0.iter();
                from_f16(
                    &words
                        .map(|word| u16::from_le_bytes(*word))
                        .collect::<Vec<_>>(),
                )
            },
        )?,
        peer(
            "f16 cast, pco",
            data,
            || {
                let bits = to_f16();
                let halves: &[f16] = bits.reinterpret_cast();
                Ok(pco::standalone::simple_compress(
                    halves,
                    &pco::ChunkConfig::default(),
                )?)
            },
            Vec::len,
            |coded| {
                let halves: Vec<f16> = pco::standalone::simple_decompress(coded)?;
                Ok(halves.to_f32_vec())
            },
        )?,
    ])
}

/// The paper's symbols, zero and signed levels, by one asymmetric numeral system with their
/// frequencies. Times are of the coding alone.
fn by_constriction(tensor: TensorView<'_>) -> Outcome<Row> {
    let data = tensor.elements().to_f32();
    let frame = Codec::paper(KEEP, LEVELS.into())?.encode(tensor, SEED)?;
    let decoded = sft_compress::decode(&frame)?.into_data();
    let kept = || decoded.iter().map(|y| y.abs()).filter(|&y| y > 0.0);
    let (lo, hi) = (kept().fold(f32::MAX, f32::min), kept().fold(0.0, f32::max));
    let last = f32::from(LEVELS - 1);
    let value = |symbol: usize| {
        let magnitude = |level: usize| lo + level as f32 * (hi - lo) / last;
        match symbol {
            0 => 0.0,
            odd if odd % 2 == 1 => magnitude(odd / 2),
            even => -magnitude(even / 2 - 1),
        }
    };
    let symbol = |y: &f32| match *y {
        0.0 => 0,
        y => 1 + 2 * ((y.abs() - lo) / (hi - lo) * last).round() as usize + usize::from(y < 0.0),
    };
    let symbols: Vec<usize> = decoded.iter().map(symbol).collect();
    let kinds = 1 + 2 * usize::from(LEVELS);
    let model = || {
        let mut counts = vec![1e-9; kinds];
        for &symbol in &symbols {
            counts[symbol] += 1.0;
        }
        Frequencies::from_floating_point_probabilities_fast::<f64>(&counts, None)
            .map_err(|()| "no frequencies")
    };
    let encode = || -> Outcome<Vec<u32>> {
        let mut coder = DefaultAnsCoder::new();
        coder.encode_iid_symbols_reverse(&symbols, &model()?)?;
        Ok(coder.into_compressed()?)
    };
    let shared = model()?;
    let decode = |words: &Vec<u32>| -> Outcome<Vec<f32>> {
        let mut coder = DefaultAnsCoder::from_compressed(words.clone()).map_err(|_| "no code")?;
        let symbols = coder.decode_iid_symbols(symbols.len(), &shared);
        symbols.map(|symbol| Ok(value(symbol?))).collect()
    };
    let bytes = |words: &Vec<u32>| 4 * (words.len() + kinds);
    peer(
        "paper's symbols, constriction (coding alone)",
        &data,
        encode,
        bytes,
        decode,
    )
}

/// Runs the Python peers on a file, where there is a Python for them.
fn python(file: &Path, elements: usize) -> Outcome<Vec<Row>> {
    let Some(python) = std::env::var_os("SFT_PEERS_PYTHON") else {
        return Ok(Vec::new());
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/codec_peers.py");
    let output = Command::new(python)
        .args([script.as_ref(), file.as_os_str()])
        .args([KEEP.to_string(), LEVELS.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("codec_peers.py failed".into());
    }
    let parse = |line: &str| -> Outcome<Row> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, bytes, relative_mse, encode_s, decode_s] = fields[..] else {
            return Err(format!("not five fields: {line}").into());
        };
        let size = 4.0 * elements as f64 / 1e9;
        Ok(Row {
            name: name.to_owned(),
            ours: false,
            bytes: bytes.parse()?,
            relative_mse: relative_mse.parse()?,
            encode_gbps: size / encode_s.parse::<f64>()?,
            decode_gbps: size / decode_s.parse::<f64>()?,
        })
    };
    String::from_utf8(output.stdout)?
        .lines()
        .map(parse)
        .collect()
}

/// Where a peer beats our best row of no more error.
fn ahead(peer: &Row, rows: &[Row]) -> String {
    let rivals = rows
        .iter()
        .filter(|row| row.ours && row.relative_mse <= peer.relative_mse);
    let Some(rival) = rivals.min_by_key(|row| row.bytes) else {
        return String::new();
    };
    let columns = [
        ("ratio", peer.bytes < rival.bytes),
        ("encode", peer.encode_gbps > rival.encode_gbps),
        ("decode", peer.decode_gbps > rival.decode_gbps),
    ];
    let won = columns.into_iter().filter(|(_, won)| *won);
    won.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

fn print(file: &Path, array: &ndarray::ArrayD<f32>, rows: &[Row]) {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let size = 4 * array.len();
    println!("\n## {name}\n\n{:?}, {size} bytes\n", array.shape());
    println!("| codec | bytes | ratio | rel. MSE | encode GB/s | decode GB/s | ahead in |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    for row in rows {
        let ahead = if row.ours {
            String::new()
        } else {
            ahead(row, rows)
        };
        let Row {
            name,
            bytes,
            relative_mse,
            encode_gbps,
            decode_gbps,
            ..
        } = row;
        let ratio = size as f64 / *bytes as f64;
        println!(
            "| {name} | {bytes} | {ratio:.2} | {relative_mse:.2e} | {encode_gbps:.3} | {decode_gbps:.3} | {ahead} |"
        );
    }
}
