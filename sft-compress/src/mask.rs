use crate::bytes::ByteReader;
use crate::error::{Error, Result};
use crate::golomb::{self, SectionReader};

/// Appends the set of `kept` positions, ascending and below `elements`, as the
/// gaps between the members of the smaller class: the kept or the dropped.
pub(crate) fn write(out: &mut Vec<u8>, kept: &[u32], elements: usize) {
    if codes_kept(kept.len(), elements) {
        golomb::write_section(out, &gaps(kept));
    } else {
        golomb::write_section(out, &gaps(&complement(kept, elements)));
    }
}

/// Reads the set of `kept` positions below `elements`, ascending.
pub(crate) fn read(body: &mut ByteReader<'_>, kept: usize, elements: usize) -> Result<Vec<u32>> {
    if codes_kept(kept, elements) {
        read_positions(body, kept, elements)
    } else {
        let dropped = read_positions(body, elements - kept, elements)?;
        Ok(complement(&dropped, elements))
    }
}

fn codes_kept(kept: usize, elements: usize) -> bool {
    kept <= elements / 2
}

/// The number of positions skipped before each position.
fn gaps(positions: &[u32]) -> Vec<u32> {
    let mut next = 0;
    positions
        .iter()
        .map(|&position| {
            let gap = position - next;
            next = position + 1;
            gap
        })
        .collect()
}

fn read_positions(body: &mut ByteReader<'_>, count: usize, elements: usize) -> Result<Vec<u32>> {
    let mut section = SectionReader::new(body, count)?;
    let mut positions = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        if next >= elements as u32 {
            return Err(Error::corrupt("a position lies behind the last element"));
        }
        let position = next + section.next(elements as u32 - 1 - next)?;
        positions.push(position);
        next = position + 1;
    }
    section.finish()?;
    Ok(positions)
}

/// The positions below `elements` that are not in `positions`.
fn complement(positions: &[u32], elements: usize) -> Vec<u32> {
    let mut rest = Vec::with_capacity(elements - positions.len());
    let mut next = 0;
    for &position in positions.iter().chain([&(elements as u32)]) {
        rest.extend(next..position);
        next = position + 1;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(kept: &[u32], elements: usize) -> usize {
        let mut bytes = Vec::new();
        write(&mut bytes, kept, elements);
        let mut body = ByteReader::new(&bytes);
        assert_eq!(read(&mut body, kept.len(), elements).as_deref(), Ok(kept));
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
        assert_eq!(
            round_trip(&kept, 1000),
            round_trip(&complement(&kept, 1000), 1000)
        );
    }

    #[test]
    fn positions_past_the_end_are_rejected() {
        let mut bytes = Vec::new();
        golomb::write_section(&mut bytes, &[1, 1]);
        assert!(read(&mut ByteReader::new(&bytes), 2, 4).is_ok());
        assert!(read_positions(&mut ByteReader::new(&bytes), 2, 3).is_err());
        assert!(read_positions(&mut ByteReader::new(&bytes), 2, 2).is_err());
    }
}
