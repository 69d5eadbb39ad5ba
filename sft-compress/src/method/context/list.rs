//! The symbols of a chunk that keeps few elements as a list: the gap before each, sign and token.
//!
//! Gaps and tokens are in an Exp-Golomb code, short for those of elements side by side, and long
//! for gaps of any size.

use crate::coding::bits::{BitReader, BitWriter};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};

/// Bits of the order of the gaps' code, and of that of the tokens' code.
const ORDER_BITS: [u32; 2] = [5, 3];

/// Appends the list of the symbols in `plane`; how many go to `bytes`. `list` is memory to work in.
pub(super) fn write(
    (bytes, writer): (&mut Vec<u8>, &mut BitWriter),
    plane: &[i8],
    list: &mut Vec<(u32, i8)>,
) {
    const BLOCK: usize = 64;
    list.clear();
    let mut next = 0;
    for (block, start) in plane.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        if block.iter().fold(0, |any, symbol| any | symbol) == 0 {
            continue;
        }
        for (&symbol, position) in block.iter().zip(start..).filter(|(s, _)| **s != 0) {
            list.push((position - next, symbol));
            next = position + 1;
        }
    }
    put_varint(bytes, list.len() as u64);
    if list.is_empty() {
        return;
    }
    let gaps = best_order(&list.iter().map(|(gap, _)| *gap), ORDER_BITS[0]);
    let tokens = best_order(&list.iter().map(|(_, symbol)| rank(*symbol)), ORDER_BITS[1]);
    writer.write(gaps, ORDER_BITS[0]);
    writer.write(tokens, ORDER_BITS[1]);
    for &(gap, symbol) in &*list {
        write_number(writer, gap, gaps);
        writer.write(u32::from(symbol < 0), 1);
        write_number(writer, rank(symbol), tokens);
    }
}

/// Reads the symbols of a chunk, of tokens up to `max_token`, and gives the bits behind them.
pub(super) fn read<'a>(
    mut bytes: ByteReader<'a>,
    max_token: u8,
    plane: &mut [i8],
) -> Result<BitReader<'a>> {
    plane.fill(0);
    let count = bytes.varint_up_to(plane.len(), "the number of elements in a list")?;
    let mut bits = BitReader::new(bytes.take_rest());
    if count == 0 {
        return Ok(bits);
    }
    let [gaps, tokens] = [bits.read(ORDER_BITS[0])?, bits.read(ORDER_BITS[1])?];
    let mut rest = plane.iter_mut();
    for _ in 0..count {
        let gap = read_number(&mut bits, gaps)?;
        let place = usize::try_from(gap).ok().and_then(|gap| rest.nth(gap));
        let place = place.ok_or_else(|| Error::corrupt("a position beyond the end of a chunk"))?;
        let is_negative = bits.read(1)? == 1;
        let token = read_number(&mut bits, tokens)? + 1;
        if token > u64::from(max_token) {
            return Err(Error::corrupt(format!("a token {token}")));
        }
        let token = (token as u8).cast_signed();
        *place = if is_negative { -token } else { token };
    }
    Ok(bits)
}

fn rank(symbol: i8) -> u32 {
    u32::from(symbol.unsigned_abs()) - 1
}

/// The order of the code that is shortest.
fn best_order(numbers: &(impl Iterator<Item = u32> + Clone), order_bits: u32) -> u32 {
    let length = |order: u32| {
        let lengths = numbers.clone();
        let lengths = lengths.map(|x| u64::from(2 * ((x >> order) + 1).ilog2() + 1 + order));
        lengths.sum::<u64>()
    };
    (0..1 << order_bits)
        .min_by_key(|&order| length(order))
        .unwrap_or(0)
}

/// Appends a number below 2³² − 1: of the part above the lowest `order` bits, and one more, as many
/// zeros as it has bits below the highest, a one and those bits; then the lowest.
fn write_number(out: &mut BitWriter, x: u32, order: u32) {
    let above = (x >> order) + 1;
    let bits = above.ilog2();
    out.write_unary(bits);
    out.write(above & ((1 << bits) - 1), bits);
    out.write(x & ((1 << order) - 1), order);
}

fn read_number(bits: &mut BitReader<'_>, order: u32) -> Result<u64> {
    let len = bits.read_unary()?;
    if len > 31 {
        return Err(Error::corrupt(format!("a number of {len} bits in a list")));
    }
    let above = 1 << len | u64::from(bits.read(len as u32)?);
    Ok((above - 1) << order | u64::from(bits.read(order)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(plane: &[i8]) -> Vec<u8> {
        let (mut bytes, mut bits) = (Vec::new(), BitWriter::reusing(Vec::new()));
        write((&mut bytes, &mut bits), plane, &mut Vec::new());
        bytes.extend(bits.finish());
        bytes
    }

    #[test]
    fn lists_come_back() {
        let symbol = |i: i32| i8::try_from(i * 37 % 141 - 70).unwrap();
        let dense: Vec<i8> = (0..300).map(symbol).collect();
        let mut few = vec![0; 1 << 18];
        (few[7], few[8], few[200_000], few[(1 << 18) - 1]) = (1, -70, 5, -1);
        for plane in [vec![], vec![0; 99], vec![-3], dense, few] {
            let bytes = coded(&plane);
            let mut back = vec![9; plane.len()];
            let rest = read(ByteReader::new(&bytes), 70, &mut back).unwrap();
            rest.finish().unwrap();
            assert_eq!(back, plane);
            for end in 0..bytes.len() {
                let cut = read(ByteReader::new(&bytes[..end]), 70, &mut back);
                assert!(cut.is_err());
            }
        }
    }

    #[test]
    fn wrong_lists_are_refused() {
        let bytes = coded(&[0, 0, 4, 0, -2]);
        let refused = |bytes: &[u8], max_token, len| {
            let mut plane = vec![0; len];
            let read = read(ByteReader::new(bytes), max_token, &mut plane);
            read.and_then(BitReader::finish).is_err()
        };
        assert!(!refused(&bytes, 4, 5));
        assert!(refused(&bytes, 3, 5) && refused(&bytes, 4, 4));
        assert!(refused(&[&bytes[..], &[0]].concat(), 4, 5));
        assert!(refused(&[1, 0, 0, 0, 0, 0, 0], 4, 5) && refused(&[0, 0], 4, 5));
    }
}
