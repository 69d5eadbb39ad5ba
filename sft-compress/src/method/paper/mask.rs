use crate::coding::bytes::ByteReader;
use crate::coding::golomb::{self, SectionReader};
use crate::error::Result;

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    dropped: Vec<u32>,
    scratch: Vec<u32>,
}

/// Appends the set of `kept` positions, ascending and below `elements`, as the
/// gaps between the members of the smaller class: the kept or the dropped.
pub(crate) fn write(out: &mut Vec<u8>, kept: &[u32], elements: usize, memory: &mut Memory) {
    let Memory { dropped, scratch } = memory;
    if codes_kept(kept.len(), elements) {
        golomb::write_section(out, gaps(kept), scratch);
    } else {
        complement(kept, elements, dropped);
        golomb::write_section(out, gaps(dropped), scratch);
    }
}

/// Reads the set of `kept` positions below `elements`, ascending, into `out`;
/// `dropped` is memory to work in.
pub(crate) fn read(
    body: &mut ByteReader<'_>,
    kept: usize,
    elements: usize,
    out: &mut Vec<u32>,
    dropped: &mut Vec<u32>,
) -> Result<()> {
    if codes_kept(kept, elements) {
        return read_positions(body, kept, elements, out);
    }
    read_positions(body, elements - kept, elements, dropped)?;
    complement(dropped, elements, out);
    Ok(())
}

fn codes_kept(kept: usize, elements: usize) -> bool {
    kept <= elements / 2
}

/// The number of positions skipped before each position.
fn gaps(positions: &[u32]) -> impl Iterator<Item = u32> + Clone {
    let before = [u32::MAX].into_iter().chain(positions.iter().copied());
    let pairs = positions.iter().zip(before);
    pairs.map(|(position, before)| position.wrapping_sub(before).wrapping_sub(1))
}

fn read_positions(
    body: &mut ByteReader<'_>,
    count: usize,
    elements: usize,
    positions: &mut Vec<u32>,
) -> Result<()> {
    let section = SectionReader::new(body, count)?;
    positions.clear();
    section.read_sums(count, elements as u64, positions)?;
    Ok(())
}

/// The positions below `elements` that are not in `positions`.
fn complement(positions: &[u32], elements: usize, rest: &mut Vec<u32>) {
    rest.clear();
    let mut next = 0;
    for &position in positions.iter().chain([&(elements as u32)]) {
        rest.extend(next..position);
        next = position + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(kept: &[u32], elements: usize) -> usize {
        let mut bytes = Vec::new();
        write(&mut bytes, kept, elements, &mut Memory::default());
        let mut body = ByteReader::new(&bytes);
        let (mut positions, mut dropped) = (vec![7; 3], vec![7; 3]);
        read(
            &mut body,
            kept.len(),
            elements,
            &mut positions,
            &mut dropped,
        )
        .unwrap();
        assert_eq!(positions, kept);
        body.finish().unwrap();
        bytes.len()
    }

    proptest! {
        #[test]
        fn any_set_round_trips(marks in prop::collection::vec(any::<bool>(), 0..300)) {
            let kept: Vec<u32> = (0..).zip(&marks).filter(|(_, mark)| **mark).map(|(i, _)| i).collect();
            round_trip(&kept, marks.len());
        }
    }

    #[test]
    fn all_and_none_cost_nothing() {
        assert_eq!(round_trip(&[], 1000), 0);
        let all: Vec<u32> = (0..1000).collect();
        assert_eq!(round_trip(&all, 1000), 0);
    }

    #[test]
    fn the_smaller_class_is_coded() {
        let kept: Vec<u32> = (0..1000).filter(|i| i % 10 == 3).collect();
        let mut dropped = Vec::new();
        complement(&kept, 1000, &mut dropped);
        assert_eq!(round_trip(&kept, 1000), round_trip(&dropped, 1000));
    }

    #[test]
    fn positions_past_the_end_are_rejected() {
        let mut bytes = Vec::new();
        golomb::write_section(&mut bytes, [1, 1].into_iter(), &mut Vec::new());
        for (elements, accepted) in [(4, true), (3, false), (2, false)] {
            let read = read_positions(&mut ByteReader::new(&bytes), 2, elements, &mut Vec::new());
            assert_eq!(read.is_ok(), accepted, "{elements} elements");
        }
    }
}
