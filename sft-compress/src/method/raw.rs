use crate::dtype::{Dtype, bf16_to_f32, f16_to_f32};
use crate::error::{Error, Result};
use crate::tensor::Elements;

/// Appends the elements, bit for bit.
pub(crate) fn write(out: &mut Vec<u8>, elements: Elements<'_>) {
    match elements {
        Elements::F32(data) => {
            let start = out.len();
            out.resize(start + size_of_val(data), 0);
            for (bytes, x) in out[start..].chunks_exact_mut(4).zip(data) {
                bytes.copy_from_slice(&x.to_le_bytes());
            }
        }
        Elements::F16(bits) | Elements::Bf16(bits) => {
            out.extend(bits.iter().flat_map(|bits| bits.to_le_bytes()));
        }
    }
}

/// Reads `elements` elements of a type, and nothing else, into `data`.
pub(crate) fn read(bytes: &[u8], elements: usize, dtype: Dtype, data: &mut Vec<f32>) -> Result<()> {
    if elements.checked_mul(dtype.bytes()) != Some(bytes.len()) {
        return Err(Error::corrupt(format!(
            "{} bytes for {elements} raw elements",
            bytes.len()
        )));
    }
    data.clear();
    let halves = || {
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .copied()
            .map(u16::from_le_bytes)
    };
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0.iter().copied();
            data.extend(words.map(f32::from_le_bytes));
        }
        Dtype::F16 => data.extend(halves().map(f16_to_f32)),
        Dtype::Bf16 => data.extend(halves().map(bf16_to_f32)),
    }
    Ok(())
}
