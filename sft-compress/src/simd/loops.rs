#![allow(clippy::inline_always, reason = "compiled for each level")]

use crate::dtype::{bf16_to_f32, f16_to_f32};
use crate::quantize::{LogScale, Noise, Scale};

use super::Level;
#[cfg(target_arch = "x86_64")]
use super::level::Kind;

/// A function whose body is compiled once for each level. Rust's arithmetic
/// does not depend on the instructions, so all do the same, bit for bit.
macro_rules! for_each_level {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name(level: Level, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }
            match level.kind() {
                // SAFETY: the processor has the instructions of the level.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}

for_each_level! {
    /// Appends half-precision numbers.
    fn extend_f16(bits: &[u16], out: &mut Vec<f32>) {
        out.extend(bits.iter().map(|&bits| f16_to_f32(bits)));
    }
}

for_each_level! {
    /// Appends bfloat16 numbers.
    fn extend_bf16(bits: &[u16], out: &mut Vec<f32>) {
        out.extend(bits.iter().map(|&bits| bf16_to_f32(bits)));
    }
}

for_each_level! {
    /// The least and the largest magnitude bits; `u32::MAX` and 0 if there are none.
    fn span(values: &[f32]) -> (u32, u32) {
        values.iter().fold((u32::MAX, 0), |(lo, hi), x| {
            let bits = x.to_bits() & 0x7fff_ffff;
            (lo.min(bits), hi.max(bits))
        })
    }
}

for_each_level! {
    /// The sum of squares, in eight lanes, element i in lane i mod 8, and those
    /// in order.
    fn square_sums(data: &[f32]) -> f64 {
        let mut sums = [0.0; 8];
        let (blocks, rest) = data.as_chunks::<8>();
        for block in blocks {
            for (sum, &x) in sums.iter_mut().zip(block) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        sums.iter().sum()
    }
}

/// Evenly or otherwise spaced points.
#[derive(Clone, Copy)]
pub(crate) enum Spaced<'a> {
    Linear(&'a Scale),
    Log(&'a LogScale),
}

/// Elements that are quantized together.
const GROUP: usize = 16;

for_each_level! {
    /// The index of each of the `values` at the `positions`; `noise` decides
    /// stochastic roundings, none the nearest.
    fn quantize(spaced: Spaced<'_>, positions: &[u32], values: &[f32], noise: Option<Noise>, indices: &mut Vec<u32>) {
        let (whole, rest) = values.as_chunks();
        let (whole_positions, rest_positions) = positions.as_chunks();
        for (positions, values) in whole_positions.iter().zip(whole) {
            indices.extend_from_slice(&quantize_group(spaced, positions, values, noise));
        }
        let (mut last_positions, mut last) = ([0; GROUP], [0.0; GROUP]);
        last_positions[..rest.len()].copy_from_slice(rest_positions);
        last[..rest.len()].copy_from_slice(rest);
        if !rest.is_empty() {
            let group = quantize_group(spaced, &last_positions, &last, noise);
            indices.extend_from_slice(&group[..rest.len()]);
        }
    }
}

#[inline(always)]
fn quantize_group(
    spaced: Spaced<'_>,
    positions: &[u32; GROUP],
    values: &[f32; GROUP],
    noise: Option<Noise>,
) -> [u32; GROUP] {
    let mut uniforms = [0.5; GROUP];
    if let Some(noise) = noise {
        for (uniform, &position) in uniforms.iter_mut().zip(positions) {
            *uniform = noise.uniform(position);
        }
    }
    match spaced {
        Spaced::Linear(scale) => scale.quantize_all(values, &uniforms),
        Spaced::Log(scale) => scale.quantize_all(values, &uniforms),
    }
}

for_each_level! {
    /// The symbol of each element in a dead zone of step 1/`per_step`, where
    /// those of more than 16 steps have a token of 17. Tells whether there are any.
    fn dead_zone(data: &[f32], per_step: f32, symbols: &mut [i8]) -> bool {
        /// A number of this size has no places behind the point.
        const WHOLE: f32 = (1 << 23) as f32;
        let mut largest = 0;
        for (symbol, x) in symbols.iter_mut().zip(data) {
            let rounded_down = (x.abs() * per_step - 0.125).clamp(0.0, 17.0) + WHOLE;
            let token = (rounded_down.to_bits() & 0x1f).cast_signed();
            largest = largest.max(token);
            let sign = x.to_bits().cast_signed() >> 31;
            *symbol = ((token ^ sign) - sign) as i8;
        }
        largest > 16
    }
}

for_each_level! {
    /// The symbol of each index below 16, with the sign of its value.
    fn to_symbols(indices: &[u32], values: &[f32], symbols: &mut Vec<i8>) {
        symbols.extend(indices.iter().zip(values).map(|(&index, x)| {
            let sign = x.to_bits().cast_signed() >> 31;
            let token = index.cast_signed() + 1;
            ((token ^ sign) - sign) as i8
        }));
    }
}

for_each_level! {
    /// The number of symbols that are not zero.
    fn count_nonzero(symbols: &[i8]) -> u32 {
        let mut total = 0;
        // In bytes, as long as they do not overflow.
        for part in symbols.chunks(64 * 255) {
            let mut counts = [0_u8; 64];
            let (blocks, rest) = part.as_chunks::<64>();
            for block in blocks {
                for i in 0..64 {
                    counts[i] += u8::from(block[i] != 0);
                }
            }
            total += counts.iter().map(|&count| u32::from(count)).sum::<u32>();
            total += rest.iter().map(|&symbol| u32::from(symbol != 0)).sum::<u32>();
        }
        total
    }
}

for_each_level! {
    /// Counts in which elements of a row the symbol is −2 or less, −1, 1, and 2
    /// or more.
    fn count_kinds(symbols: &[i8], counts: &mut [Vec<u16>; 4]) {
        for (counts, kind) in counts.iter_mut().zip([-2, -1, 1, 2]) {
            for (count, &symbol) in counts.iter_mut().zip(symbols) {
                *count += u16::from(symbol.clamp(-2, 2) == kind);
            }
        }
    }
}

for_each_level! {
    /// The largest magnitude of a symbol.
    fn max_magnitude(symbols: &[i8]) -> u8 {
        symbols.iter().fold(0, |max, symbol| max.max(symbol.unsigned_abs()))
    }
}

/// What tells the code of an element: its table and the rank of its symbol.
#[derive(Clone, Copy)]
pub(crate) struct RowCodes<'a> {
    /// The first code of the row's class.
    pub(crate) row: u16,
    /// For each channel the distance of its class's first code from that.
    pub(crate) channels: &'a [u16],
    /// Ranks of a table.
    pub(crate) alphabet: u16,
}

for_each_level! {
    /// The codes of a row of symbols; `above` is the row before, if tables
    /// depend on it.
    fn fill_codes(row: RowCodes<'_>, symbols: &[i8], above: Option<&[i8]>, codes: &mut [u16]) {
        let rank = |symbol: i8| {
            2 * u16::from(symbol.unsigned_abs()) - u16::from(symbol > 0)
        };
        let base = row.channels.iter().map(|channel| row.row + channel);
        let Some(above) = above else {
            for ((code, base), &symbol) in codes.iter_mut().zip(base).zip(symbols) {
                *code = base + rank(symbol);
            }
            return;
        };
        for (((code, base), &symbol), &above) in codes.iter_mut().zip(base).zip(symbols).zip(above) {
            let kind = u16::from(above > 0) + 2 * u16::from(above < 0);
            *code = base + kind * row.alphabet + rank(symbol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all magnitudes and both signs.
    fn data(len: u32) -> Vec<f32> {
        let noise = Noise::new(3);
        let x = |i| (noise.uniform(i) - 0.5) * 2.0_f64.powi((i % 40).cast_signed() - 20);
        (0..len).map(|i| x(i) as f32).collect()
    }

    #[test]
    fn sums_and_spans_are_the_same_at_all_levels() {
        let data = data(1003);
        for len in [0, 1, 8, 9, 1003] {
            let data = &data[..len];
            let plain: f64 = data.iter().map(|&x| f64::from(x).powi(2)).sum();
            let bits = || data.iter().map(|x| x.abs().to_bits());
            let ends = (bits().min().unwrap_or(u32::MAX), bits().max().unwrap_or(0));
            let first = square_sums(Level::SCALAR, data);
            assert!((first - plain).abs() <= 1e-12 * plain);
            for level in Level::all() {
                assert_eq!(square_sums(level, data).to_bits(), first.to_bits());
                assert_eq!(span(level, data), ends);
            }
        }
    }

    #[test]
    fn quantizing_many_equals_quantizing_one() {
        let data: Vec<f32> = data(333).iter().map(|x| x.abs().clamp(1e-3, 1e3)).collect();
        let positions: Vec<u32> = (0..333).map(|i| i * i).collect();
        for levels in [2, 3, 8, 18, 19, 256] {
            let (linear, log) = (
                Scale::new(1e-3, 1e3, levels),
                LogScale::new(1e-3, 1e3, levels),
            );
            for noise in [None, Some(Noise::new(7))] {
                let uniform = |p: u32| noise.map_or(0.5, |noise| noise.uniform(p));
                let slow = |quantize: &dyn Fn(f32, f64) -> u8| -> Vec<u32> {
                    let pairs = data.iter().zip(&positions);
                    pairs
                        .map(|(&x, &p)| quantize(x, uniform(p)).into())
                        .collect()
                };
                for (spaced, slow) in [
                    (Spaced::Linear(&linear), slow(&|x, u| linear.quantize(x, u))),
                    (Spaced::Log(&log), slow(&|x, u| log.quantize(x, u))),
                ] {
                    for level in Level::all() {
                        let mut indices = Vec::new();
                        quantize(level, spaced, &positions, &data, noise, &mut indices);
                        assert_eq!(indices, slow);
                    }
                }
            }
        }
    }

    #[test]
    fn symbols_and_codes_are_the_same_at_all_levels() {
        let data = data(500);
        let first = |level| {
            let mut symbols = vec![0; data.len()];
            let large = dead_zone(level, &data, 0.9, &mut symbols);
            (large, symbols)
        };
        let (large, symbols) = first(Level::SCALAR);
        assert!(large);
        for (x, symbol) in data.iter().zip(&symbols) {
            let token = (f64::from(x.abs()) * 0.9 + 0.375).floor().min(17.0);
            // Single precision may round across the edge of an interval.
            assert!((f64::from(*symbol) * f64::from(x.signum()) - token).abs() <= 1.0);
        }
        let channels: Vec<u16> = (0..500).map(|c| c % 7 * 1000).collect();
        let row = RowCodes {
            row: 3,
            channels: &channels,
            alphabet: 35,
        };
        for level in Level::all() {
            assert_eq!(first(level), (large, symbols.clone()));
            let nonzero = symbols.iter().filter(|symbol| **symbol != 0).count();
            assert_eq!(
                count_nonzero(level, &symbols.repeat(90)),
                90 * nonzero as u32
            );
            assert_eq!(max_magnitude(level, &symbols), 17);
            for above in [None, Some(&symbols[1..])] {
                let mut codes = vec![0; 499];
                fill_codes(level, row, &symbols[..499], above, &mut codes);
                for (c, code) in codes.into_iter().enumerate() {
                    let kind = above.map_or(0, |above| [2, 0, 1][(above[c].signum() + 1) as usize]);
                    let rank = crate::context::rank(symbols[c]) as u16;
                    assert_eq!(code, 3 + channels[c] + kind * 35 + rank);
                }
            }
        }
    }
}
