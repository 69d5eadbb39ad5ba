//! Every way of `sft-compress` to encode a tensor of yours, side by side.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use half::f16;
use npyz::{NpyFile, Order};
use serde::Serialize;
use sft_compress::{
    Code, Codec, Decoder, Elements, Encoder, Energy, Tensor, TensorView, inspect, measure,
};
use sft_examples::console::{ended, say};

/// Encodes a tensor with every codec and tells size, error and speed.
#[derive(Parser)]
#[command(version, args_override_self = true)]
struct Flags {
    /// A NumPy file of f32 or f16, C order, 1 to 8 dimensions; the last is that of the channels.
    file: PathBuf,
    /// Kept fraction of the elements, in (0, 1].
    #[arg(long, default_value_t = 0.2)]
    keep: f64,
    /// Quantization points, 2 to 256.
    #[arg(long, default_value_t = 8)]
    levels: u32,
    /// Print a JSON list instead of a table.
    #[arg(long)]
    json: bool,
}

/// One row of the report.
#[derive(Serialize)]
struct Row {
    codec: String,
    bytes: usize,
    bits_per_element: f64,
    ratio: f64,
    /// Elements that do not decode to zero.
    kept: usize,
    relative_mse: f64,
    /// The same without the largest 0.05 % of the elements.
    bulk_mse: f64,
    cosine: f64,
    encode_gbps: f64,
    decode_gbps: f64,
    threads: usize,
    /// Of `paper`: the sizes after its three stages, as in the paper's figure 8b.
    #[serde(skip_serializing_if = "Option::is_none")]
    stages: Option<Stages>,
}

impl Row {
    /// How many elements are kept, or that the frame dropped a tensor that is not zero.
    fn kept_text(&self) -> String {
        match (self.kept, self.relative_mse > 0.0) {
            (0, true) => "NOTHING".to_owned(),
            (kept, _) => kept.to_string(),
        }
    }
}

/// Bytes after each stage of the paper's codec.
#[derive(Serialize)]
#[allow(clippy::struct_field_names)] // the unit belongs to the name
struct Stages {
    /// Kept elements with a 32-bit position each.
    top_k_bytes: usize,
    /// Positions, and a sign and the bits of a level for each kept element.
    quantized_bytes: usize,
    /// The frame.
    coded_bytes: usize,
}

fn main() -> ExitCode {
    ended(run(&Flags::parse()))
}

fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let array = Npy::read(&flags.file)?;
    let tensor = TensorView::of(array.elements(), &array.shape)?;
    let mut rows = Vec::new();
    for (name, codec) in codecs(tensor, flags)? {
        for threads in threads() {
            let mut row = with_threads(threads, || row(&name, codec, tensor, threads))??;
            if name == "paper" {
                row.stages = Some(stages(tensor, codec, row.bytes)?);
            }
            rows.push(row);
        }
    }
    if flags.json {
        say(format_args!("{}", serde_json::to_string_pretty(&rows)?))?;
    } else {
        print(&array, &rows)?;
    }
    Ok(())
}

fn codecs(tensor: TensorView<'_>, flags: &Flags) -> sft_compress::Result<Vec<(String, Codec)>> {
    let paper = Codec::paper(flags.keep, flags.levels)?;
    let error = measure(paper, tensor, SEED)?.relative_mse;
    let named = [
        ("paper", paper),
        (
            "paper+context",
            Codec::new(paper.config().with_code(Code::Context))?,
        ),
        ("activation", Codec::activation(flags.keep, flags.levels)?),
        ("gradient", Codec::gradient(flags.keep, flags.levels)?),
        (
            "dead_zone@paper",
            Codec::for_error(error.clamp(1e-6, 0.75))?.with_energy(Energy::All),
        ),
        ("error:0.05", Codec::for_error(0.05)?),
        ("default up", Codec::default_activation()),
        ("default down", Codec::default_gradient()),
        ("ViT up", Codec::vit_activation()),
        ("ViT down", Codec::vit_gradient()),
    ];
    Ok(named.map(|(name, codec)| (name.to_owned(), codec)).into())
}

/// Of the random roundings.
const SEED: u64 = 1;

/// One thread, and all there are.
fn threads() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    if all > 1 { vec![1, all] } else { vec![1] }
}

fn with_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T, rayon::ThreadPoolBuildError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    Ok(pool.install(work))
}

fn row(
    name: &str,
    codec: Codec,
    tensor: TensorView<'_>,
    threads: usize,
) -> sft_compress::Result<Row> {
    let (mut encoder, mut decoder) = (Encoder::new(codec), Decoder::new());
    let (mut frame, mut decoded) = (Vec::new(), Tensor::default());
    let encode_s = median_s(|| encoder.encode_into(tensor, SEED, &mut frame))?;
    let decode_s = median_s(|| decoder.decode_into(&frame, &mut decoded))?;
    let elements = tensor.elements();
    let size = (elements.len() * elements.dtype().bytes()) as f64;
    Ok(Row {
        codec: name.to_owned(),
        bytes: frame.len(),
        bits_per_element: 8.0 * frame.len() as f64 / elements.len().max(1) as f64,
        ratio: size / frame.len() as f64,
        kept: inspect(&frame)?.kept,
        relative_mse: measure(codec, tensor, SEED)?.relative_mse,
        bulk_mse: bulk_mse(&elements.to_f32(), decoded.data()),
        cosine: cosine(&elements.to_f32(), decoded.data()),
        encode_gbps: size / encode_s / 1e9,
        decode_gbps: size / decode_s / 1e9,
        threads,
        stages: None,
    })
}

/// The median time of repetitions over about half a second, after one to warm up.
fn median_s(mut work: impl FnMut() -> sft_compress::Result<()>) -> sft_compress::Result<f64> {
    work()?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || (begin.elapsed().as_secs_f64() < 0.5 && times.len() < 1000) {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// The relative squared error without the largest 0.05 % of the elements.
fn bulk_mse(x: &[f32], y: &[f32]) -> f64 {
    let mut sorted: Vec<f32> = x.iter().map(|x| x.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(&limit) = sorted.get((sorted.len() - sorted.len() / 2000).saturating_sub(1)) else {
        return 0.0;
    };
    let (mut error, mut power) = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y).filter(|(x, _)| x.abs() <= limit) {
        error += (f64::from(x) - f64::from(y)).powi(2);
        power += f64::from(x).powi(2);
    }
    if error > 0.0 { error / power } else { 0.0 }
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let norms = (dot(x, x) * dot(y, y)).sqrt();
    if norms > 0.0 { dot(x, y) / norms } else { 0.0 }
}

fn stages(
    tensor: TensorView<'_>,
    codec: Codec,
    coded_bytes: usize,
) -> sft_compress::Result<Stages> {
    let frame = codec.encode(tensor, SEED)?;
    let kept = inspect(&frame)?.kept;
    let level_bits = codec.levels().unwrap_or(2).next_power_of_two().ilog2() as usize;
    Ok(Stages {
        top_k_bytes: kept * (4 + tensor.elements().dtype().bytes()),
        quantized_bytes: 4 * kept + (kept * (1 + level_bits)).div_ceil(8),
        coded_bytes,
    })
}

fn print(array: &Npy, rows: &[Row]) -> sft_core::Result<()> {
    say(format_args!("{:?}, {} bytes", array.shape, array.bytes()))?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "codec",
        "threads",
        "bytes",
        "ratio",
        "bit/element",
        "kept",
        "rel. MSE",
        "bulk MSE",
        "cosine",
        "encode GB/s",
        "decode GB/s",
    ]);
    for row in rows {
        table.add_row([
            row.codec.clone(),
            row.threads.to_string(),
            row.bytes.to_string(),
            format!("{:.2}", row.ratio),
            format!("{:.3}", row.bits_per_element),
            row.kept_text(),
            format!("{:.4}", row.relative_mse),
            format!("{:.4}", row.bulk_mse),
            format!("{:.4}", row.cosine),
            format!("{:.2}", row.encode_gbps),
            format!("{:.2}", row.decode_gbps),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say(format_args!("{table}"))?;
    if let Some(stages) = rows.iter().find_map(|row| row.stages.as_ref()) {
        let Stages {
            top_k_bytes,
            quantized_bytes,
            coded_bytes,
        } = stages;
        say(format_args!(
            "paper, bytes after Top-K {top_k_bytes}, quantization {quantized_bytes}, coding {coded_bytes}"
        ))?;
    }
    Ok(())
}

/// A NumPy array of floats in row-major order.
struct Npy {
    shape: Vec<usize>,
    data: Values,
}

enum Values {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

impl Npy {
    fn elements(&self) -> Elements<'_> {
        match &self.data {
            Values::F32(data) => Elements::F32(data),
            Values::F16(bits) => Elements::F16(bits),
        }
    }

    fn bytes(&self) -> usize {
        self.elements().len() * self.elements().dtype().bytes()
    }

    fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        Self::parse(path).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn parse(path: &Path) -> Result<Self, Box<dyn Error>> {
        let file = NpyFile::new(BufReader::new(File::open(path)?))?;
        let shape = file.shape().iter().map(|&dim| dim as usize).collect();
        if file.order() != Order::C {
            return Err("in Fortran order, expected C order".into());
        }
        let dtype = file.dtype().descr();
        let data = match file.try_data::<f32>() {
            Ok(data) => Values::F32(data.collect::<Result<_, _>>()?),
            Err(file) => {
                let data = file.try_data::<f16>();
                let data = data.map_err(|_| format!("of dtype {dtype}, expected f32 or f16"))?;
                let bits = data.map(|x| x.map(f16::to_bits));
                Values::F16(bits.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { shape, data })
    }
}
