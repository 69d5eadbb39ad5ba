//! GGUF files: settings and, perhaps quantized, tensors.
//!
//! The header is read here, since candle's reader divides by an alignment of zero and keeps a number
//! that a file claims as it is; what is in the tensors' blocks is candle's to know.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use serde_json::{Map, Number, Value};

use super::source::Source;
use super::weight::{Form, Weight};

/// Elements of all arrays together that are believed: far more than vocabularies have.
const MAX_ELEMENTS: u64 = 1 << 23;
/// Where the tensors begin, unless a file says otherwise: at a multiple of as many bytes.
const ALIGNMENT: u64 = 32;

/// What a GGUF file says, and its tensors as they are named there.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) settings: Map<String, Value>,
    pub(crate) weights: Vec<(String, Weight)>,
}

impl Gguf {
    /// Whether a file begins as GGUF does.
    pub(crate) fn is_one(path: &Path) -> bool {
        let mut magic = [0; 4];
        let regular = path.metadata().is_ok_and(|file| file.is_file());
        let read = |mut file: File| file.read_exact(&mut magic);
        regular && File::open(path).and_then(read).is_ok() && &magic == b"GGUF"
    }

    /// Reads everything but the tensors.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let source = Source::open(path)?;
        let file = File::open(path).map_err(|e| e.to_string())?;
        let len = source.len().map_err(|e| e.to_string())?;
        let mut header = Header {
            file: BufReader::new(file),
            left: len,
            elements: 0,
        };
        let read = header.read(len);
        let (settings, tensors) = read.map_err(|e| format!("not a complete GGUF file: {e}"))?;
        let start = start_of_tensors(&settings, len - header.left)?;
        let source = Arc::new(source);
        let weight = |tensor: TensorInfo| {
            let place = tensor.place(start, len)?;
            let TensorInfo {
                name, shape, form, ..
            } = &tensor;
            let weight = Weight::stored(source.clone(), name, Form::Ggml(*form), shape, place);
            Ok((tensor.name, weight))
        };
        let weights = tensors
            .into_iter()
            .map(weight)
            .collect::<Result<_, String>>()?;
        Ok(Self { settings, weights })
    }
}

fn start_of_tensors(settings: &Map<String, Value>, header: u64) -> Result<u64, String> {
    let name = "general.alignment";
    let alignment = settings.get(name).map_or(Some(ALIGNMENT), Value::as_u64);
    match alignment.filter(|bytes| bytes.is_power_of_two()) {
        Some(alignment) => Ok(header
            .checked_next_multiple_of(alignment)
            .unwrap_or(u64::MAX)),
        None => Err(format!(
            "{name} must be a power of two, got {}",
            settings[name]
        )),
    }
}

struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    form: GgmlDType,
    offset: u64,
}

impl TensorInfo {
    /// Where its bytes begin, and how many they are.
    fn place(&self, start: u64, len: u64) -> Result<(u64, usize), String> {
        let Self {
            name,
            shape,
            form,
            offset,
        } = self;
        let (block, size) = (form.block_size(), form.type_size());
        let row = shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(block) {
            return Err(format!(
                "tensor {name} has rows of {row}, expected a multiple of {form:?}'s {block}"
            ));
        }
        let elements = shape
            .iter()
            .try_fold(1usize, |all, side| all.checked_mul(*side));
        let bytes = elements.and_then(|elements| (elements / block).checked_mul(size));
        let from = start.checked_add(*offset);
        let end = from
            .zip(bytes)
            .and_then(|(from, bytes)| from.checked_add(bytes as u64));
        match (from, bytes, end) {
            (Some(from), Some(bytes), Some(end)) if end <= len => Ok((from, bytes)),
            _ => Err(format!(
                "tensor {name} of shape {shape:?} at {offset} ends after the file, which has {len} bytes"
            )),
        }
    }
}

/// What has not been read of a header.
struct Header {
    file: BufReader<File>,
    /// Bytes to the end of the file.
    left: u64,
    /// Elements of arrays so far.
    elements: u64,
}

impl Header {
    fn read(&mut self, len: u64) -> Result<(Map<String, Value>, Vec<TensorInfo>), String> {
        if &self.bytes::<4>()? != b"GGUF" {
            return Err("it does not begin with GGUF".into());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("the version must be 2 or 3, got {version}"));
        }
        let (tensors, settings) = (self.u64()?, self.u64()?);
        if tensors.max(settings) > len {
            return Err(format!(
                "{tensors} tensors and {settings} settings in {len} bytes"
            ));
        }
        let mut map = Map::new();
        for _ in 0..settings {
            let name = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind).map_err(|e| format!("{name}: {e}"))?;
            map.insert(name, value);
        }
        let tensors = (0..tensors).map(|_| self.tensor());
        Ok((map, tensors.collect::<Result<_, _>>()?))
    }

    fn tensor(&mut self) -> Result<TensorInfo, String> {
        let name = self.text()?;
        let rank = self.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(format!(
                "tensor {name} has {rank} dimensions, expected 1 to 4"
            ));
        }
        let mut shape = Vec::with_capacity(4);
        for _ in 0..rank {
            shape.push(usize::try_from(self.u64()?).unwrap_or(usize::MAX));
        }
        // The file has the innermost first.
        shape.reverse();
        let form = self.u32()?;
        let form = ggml(form)
            .ok_or_else(|| format!("tensor {name} is of ggml's type {form}, which is not read"))?;
        let offset = self.u64()?;
        Ok(TensorInfo {
            name,
            shape,
            form,
            offset,
        })
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
        Ok(match kind {
            0 => u8::from_le_bytes(self.bytes()?).into(),
            1 => i8::from_le_bytes(self.bytes()?).into(),
            2 => u16::from_le_bytes(self.bytes()?).into(),
            3 => i16::from_le_bytes(self.bytes()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.bytes()?).into(),
            6 => float(f32::from_le_bytes(self.bytes()?).into()),
            7 => (self.bytes::<1>()? != [0]).into(),
            8 => self.text()?.into(),
            9 => self.array()?,
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.bytes()?).into(),
            12 => float(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(format!("a value of type {kind}, expected 0 to 12")),
        })
    }

    fn array(&mut self) -> Result<Value, String> {
        let (kind, count) = (self.u32()?, self.u64()?);
        if kind == 9 {
            return Err("an array of arrays, which is not read".into());
        }
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS || count > self.left {
            return Err(format!("an array of {count} elements, which is too long"));
        }
        (0..count).map(|_| self.value(kind)).collect()
    }

    fn text(&mut self) -> Result<String, String> {
        let len = self.u64()?;
        self.claim(len)?;
        let mut bytes = vec![0; len as usize];
        self.file
            .read_exact(&mut bytes)
            .map_err(|e| e.to_string())?;
        String::from_utf8(bytes).map_err(|e| format!("a text: {e}"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(|e| e.to_string()).map(|()| bytes)
    }

    fn claim(&mut self, bytes: u64) -> Result<(), String> {
        let left = self.left;
        let after = left.checked_sub(bytes);
        self.left =
            after.ok_or_else(|| format!("{bytes} bytes are claimed where {left} are left"))?;
        Ok(())
    }
}

/// ggml's types that candle reads.
fn ggml(number: u32) -> Option<GgmlDType> {
    Some(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;

    #[test]
    fn blocks_of_256_hold_what_the_gguf_package_says() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
        let values = fixtures.join("blocks.safetensors");
        let values = candle_core::safetensors::load(values, &Device::Cpu).unwrap();
        let file = Gguf::open(&fixtures.join("blocks.gguf")).unwrap();
        assert_eq!((file.weights.len(), values.len()), (5, 5));
        for (name, weight) in file.weights {
            let (got, want) = (weight.load().unwrap(), &values[&name]);
            let list = |tensor: &candle_core::Tensor| {
                let tensor = tensor.flatten_all().unwrap();
                tensor.to_vec1::<f32>().unwrap()
            };
            let (got, want) = (list(&got), list(want));
            let largest = want
                .iter()
                .fold(0.0f32, |most, value| most.max(value.abs()));
            assert!(largest > 0.0 && got.len() == 512, "{name}");
            for (got, want) in got.into_iter().zip(want) {
                assert!((got - want).abs() <= 1e-6 * largest, "{name}: {got} {want}");
            }
        }
    }
}
