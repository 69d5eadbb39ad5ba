//! What some data holds, as one number.

use std::fmt;

use candle_core::{DType, Result as TensorResult, Tensor};
use twox_hash::xxhash3_128::Hasher;

/// A digest of contents: XXH3 of 128 bits, which tells changed data from the same data and is no
/// protection against who wants two to look alike.
///
/// Every part is told apart from the next by its length, so that the same bytes in other parts give
/// another digest.
#[derive(Default)]
pub struct Digest(Hasher);

impl Digest {
    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.write(bytes);
    }

    /// Adds bytes of a part whose length is told otherwise: the same however they are cut.
    #[cfg(feature = "net")]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    /// Adds numbers by their bits.
    pub fn floats(&mut self, values: &[f32]) {
        self.number(values.len() as u64);
        let mut bytes = [0; 4096];
        for values in values.chunks(bytes.len() / 4) {
            for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
                place.copy_from_slice(&value.to_le_bytes());
            }
            self.0.write(&bytes[..4 * values.len()]);
        }
    }

    /// Adds a tensor's shape and values: whole numbers, or floats as f32.
    pub(crate) fn tensor(&mut self, tensor: &Tensor) -> TensorResult<()> {
        for &side in tensor.dims() {
            self.number(side as u64);
        }
        let values = tensor.flatten_all()?;
        match values.dtype() {
            DType::U32 => {
                for number in values.to_vec1::<u32>()? {
                    self.number(u64::from(number));
                }
            }
            _ => self.floats(&values.to_dtype(DType::F32)?.to_vec1()?),
        }
        Ok(())
    }
}

/// The digest of all that was added, with the name of its kind.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:032x}", self.0.finish_128())
    }
}

/// What the text of a digest begins with.
pub(crate) const PREFIX: &str = "xxh3:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_bits_count() {
        let of = |add: &dyn Fn(&mut Digest)| {
            let mut digest = Digest::default();
            add(&mut digest);
            digest.to_string()
        };
        assert_eq!(of(&|_| ()), "xxh3:99aa06d3014798d86001c324468d497f");
        let all = [
            of(&|d| d.bytes(b"ab")),
            of(&|d| {
                d.bytes(b"a");
                d.bytes(b"b");
            }),
            of(&|d| d.floats(&[0.0])),
            of(&|d| d.floats(&[-0.0])),
        ];
        for (i, digest) in all.iter().enumerate() {
            assert!(!all[..i].contains(digest), "{digest}");
        }
        let values: Vec<f32> = (0..5000).map(|i| i as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let whole = of(&|d| {
            d.number(5000);
            d.0.write(&bytes);
        });
        assert_eq!(of(&|d| d.floats(&values)), whole);
    }
}
