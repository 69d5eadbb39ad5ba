#![allow(clippy::inline_always, reason = "compiled for each level")]

use crate::dtype::{bf16_to_f32, f16_to_f32};
use crate::value::Noise;

use super::Level;
#[cfg(target_arch = "x86_64")]
use super::level::Kind;

/// A function whose body is compiled once for each level. Rust's arithmetic
/// does not depend on the instructions, so all do the same, bit for bit.
macro_rules! for_each_level {
    ($(#[$doc:meta])* fn $name:ident$(<$g:ident: $bound:ident>)?($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name$(<$g: $bound>)?(level: Level, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body$(<$g: $bound>)?($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn avx512$(<$g: $bound>)?($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2$(<$g: $bound>)?($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }
            match level.kind() {
                // SAFETY: the processor has the instructions of the level.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512(_) => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2(_) => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}

pub(super) use for_each_level;

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

/// What is known of the elements of a limited magnitude, and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bulk {
    /// The sum of the squares of those within.
    pub(crate) power: f64,
    /// The number of those within.
    pub(crate) count: usize,
    /// The largest magnitude bits of all; above those of infinity if one is NaN.
    pub(crate) largest: u32,
}

for_each_level! {
    /// The elements of at most this magnitude. Their squares are summed in eight lanes, element i in
    /// lane i mod 8, and those in order.
    fn bulk(data: &[f32], limit: f32) -> Bulk {
        let (limit, mut sums) = (limit.to_bits(), [0.0; 8]);
        let (mut outside, mut largest) = ([0_u32; 16], [0_u32; 16]);
        let (groups, rest) = data.as_chunks::<16>();
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        for group in groups.iter().chain([&last]) {
            let bits: [u32; 16] = std::array::from_fn(|i| group[i].to_bits() & 0x7fff_ffff);
            for i in 0..16 {
                outside[i] += u32::from(bits[i] > limit);
                largest[i] = largest[i].max(bits[i]);
            }
            for half in bits.as_chunks::<8>().0 {
                for (sum, &bits) in sums.iter_mut().zip(half) {
                    let x = f64::from(f32::from_bits(if bits <= limit { bits } else { 0 }));
                    *sum += x * x;
                }
            }
        }
        Bulk {
            power: sums.iter().sum(),
            count: data.len() - outside.iter().sum::<u32>() as usize,
            largest: largest.into_iter().max().unwrap_or(0),
        }
    }
}

/// Elements that are quantized together.
pub(crate) const GROUP: usize = 16;

/// What finds indices of a group of elements. Its method must be
/// `#[inline(always)]`, to be compiled for each level.
pub(crate) trait Quantizer: Copy {
    /// The index of each of the values at the positions.
    fn indices(self, positions: &[u32; GROUP], values: &[f32; GROUP]) -> [u32; GROUP];
}

for_each_level! {
    /// Appends the index of each of the `values` at the `positions`.
    fn quantize<Q: Quantizer>(quantizer: Q, positions: &[u32], values: &[f32], indices: &mut Vec<u32>) {
        let (whole, rest) = values.as_chunks();
        let (whole_positions, rest_positions) = positions.as_chunks();
        for (positions, values) in whole_positions.iter().zip(whole) {
            indices.extend_from_slice(&quantizer.indices(positions, values));
        }
        let (mut last_positions, mut last) = ([0; GROUP], [0.0; GROUP]);
        last_positions[..rest.len()].copy_from_slice(rest_positions);
        last[..rest.len()].copy_from_slice(rest);
        if let Some(&first) = rest.first() {
            // Only numbers of the points' range are quantized.
            last[rest.len()..].fill(first);
            let group = quantizer.indices(&last_positions, &last);
            indices.extend_from_slice(&group[..rest.len()]);
        }
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
    /// The symbol of each element rounded at random to a multiple of 1/`per_step`, as
    /// [`dead_zone`] gives them; the first has the position `first`.
    fn unbiased(data: &[f32], per_step: f32, noise: Noise, first: u32, symbols: &mut [i8]) -> bool {
        /// A number of this size has no places behind the point.
        const WHOLE: f32 = (1 << 23) as f32;
        let mut largest = 0;
        for ((symbol, x), position) in symbols.iter_mut().zip(data).zip(first..) {
            let steps = (x.abs() * per_step).min(17.0) + noise.coarse(position);
            let token = ((steps.floor() + WHOLE).to_bits() & 0x1f).cast_signed();
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
    use crate::value::Noise;

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
            let bits = || data.iter().map(|x| x.abs().to_bits());
            let ends = (bits().min().unwrap_or(u32::MAX), bits().max().unwrap_or(0));
            for limit in [0.0, 1e-3, 1.0, f32::MAX] {
                let within = || data.iter().filter(|x| x.abs() <= limit);
                let plain: f64 = within().map(|&x| f64::from(x).powi(2)).sum();
                let first = bulk(Level::SCALAR, data, limit);
                assert!((first.power - plain).abs() <= 1e-12 * plain);
                assert_eq!((first.count, first.largest), (within().count(), ends.1));
                for level in Level::all() {
                    assert_eq!(bulk(level, data, limit), first);
                    assert_eq!(span(level, data), ends);
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
            let steps = f64::from(x.abs()) * f64::from(0.9_f32) - 0.125;
            let token = f64::from(*symbol) * f64::from(x.signum());
            // Single precision may round across the edge of an interval.
            let near_edge = (steps - steps.floor() - 0.5).abs() < 1e-5;
            assert!(near_edge || (token - steps.round().clamp(0.0, 17.0)).abs() < 0.1);
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
                    let rank = crate::method::context::rank(symbols[c]) as u16;
                    assert_eq!(code, 3 + channels[c] + kind * 35 + rank);
                }
            }
        }
    }

    #[test]
    fn halves_are_the_same_at_all_levels() {
        let bits: Vec<u16> = (0..=u16::MAX).rev().collect();
        let as_bits = |data: &[f32]| -> Vec<u32> { data.iter().map(|x| x.to_bits()).collect() };
        for len in [0, 1, 15, 16, 17, bits.len()] {
            let bits = &bits[..len];
            let slow = |convert: fn(u16) -> f32| -> Vec<u32> {
                [1.0_f32.to_bits()]
                    .into_iter()
                    .chain(bits.iter().map(|&bits| convert(bits).to_bits()))
                    .collect()
            };
            for level in Level::all() {
                let (mut half, mut brain) = (vec![1.0], vec![1.0]);
                extend_f16(level, bits, &mut half);
                extend_bf16(level, bits, &mut brain);
                assert_eq!(as_bits(&half), slow(f16_to_f32));
                assert_eq!(as_bits(&brain), slow(bf16_to_f32));
            }
        }
    }

    #[test]
    fn symbols_of_indices_and_their_kinds_are_the_same_at_all_levels() {
        let values = data(301);
        let indices: Vec<u32> = (0..301).map(|i| i * i % 16).collect();
        for len in [0, 1, 31, 32, 33, 301] {
            let (values, indices) = (&values[..len], &indices[..len]);
            let slow: Vec<i8> = (values.iter().zip(indices))
                .map(|(x, &index)| (index as i8 + 1) * if x.is_sign_negative() { -1 } else { 1 })
                .collect();
            for level in Level::all() {
                let mut symbols = vec![5];
                to_symbols(level, indices, values, &mut symbols);
                assert_eq!(symbols[0], 5);
                assert_eq!(symbols[1..], slow);
                // Extremes and zeros too.
                let row: Vec<i8> = (symbols
                    .iter()
                    .zip([0, 1, -128, 127, -1, 2, -2].iter().cycle()))
                .map(|(&symbol, &other)| if symbol % 3 == 0 { symbol } else { other })
                .collect();
                let mut counts: [Vec<u16>; 4] =
                    std::array::from_fn(|kind| vec![kind as u16; row.len()]);
                count_kinds(level, &row, &mut counts);
                count_kinds(level, &row, &mut counts);
                let kinds: [fn(i8) -> bool; 4] = [|s| s <= -2, |s| s == -1, |s| s == 1, |s| s >= 2];
                for (kind, (counts, is)) in counts.iter().zip(kinds).enumerate() {
                    for (&count, &symbol) in counts.iter().zip(&row) {
                        assert_eq!(count, kind as u16 + 2 * u16::from(is(symbol)));
                    }
                }
            }
        }
    }
}
