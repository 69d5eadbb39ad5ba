//! The decisions of a sample.

use super::basis::Basis;
use super::decisions::Decisions;
use super::samples::Row;

/// What the rows of a sample may build on.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    Nothing,
    /// The indices of its reference.
    Reference(&'a [Vec<i32>]),
    /// So many rows, of which each row may name one.
    Rows(usize),
}

/// What the decisions of a sample tell.
pub(super) struct Sample {
    pub(super) rows: Vec<Row>,
    /// Indices `[S, K]`, or differences where there is something before.
    pub(super) coded: Vec<Vec<i32>>,
}

/// The decisions of a sample of so many tokens, of which each group has so many coded channels.
pub(super) fn read_sample(
    decisions: &mut Decisions,
    basis: &Basis,
    coded_channels: &[usize],
    tokens: usize,
    before: Before<'_>,
) -> Sample {
    let mut sample = Sample {
        rows: vec![Row::default(); tokens],
        coded: vec![vec![0; basis.channels]; tokens],
    };
    let kind = match before {
        Before::Reference(_) => 1,
        Before::Rows(1..) => 2,
        Before::Nothing | Before::Rows(0) => 0,
    };
    if decisions.at(("empty sample", [kind, 0, 0])) {
        return sample;
    }
    let mut order: Vec<usize> = (0..tokens).collect();
    order.sort_by_key(|&row| basis.group(row));
    // The number of channels of each row.
    let mut counts = vec![0; tokens];
    for number in order {
        if basis.has_sinks() && number >= basis.prefix && kind != 1 {
            let place = usize::from(sample.rows[number - 1].is_sink);
            sample.rows[number].is_sink = decisions.at(("sink", [place, 0, 0]));
        }
        if let Before::Rows(nameable @ 1..) = before {
            sample.rows[number].named = name(decisions, &sample.rows[..number], nameable);
        }
        let row_kind = match kind {
            1 => 1,
            _ if sample.rows[number].named.is_some() => 2,
            _ => 0,
        };
        let size;
        if basis.grid.is_none() {
            let weight = decisions.tree(7, "weight", row_kind);
            if weight == 0 {
                continue;
            }
            counts[number] = basis.channels;
            if basis.has_row_steps {
                sample.rows[number].half_octaves = decisions.tree(6, "row step", 0) - 32;
            }
            size = weight - 1 - 2 * basis.channels.ilog2().cast_signed();
        } else {
            size = basis.group_sizes[basis.group(number)].into();
            let parents = basis.parents(number);
            let parents = parents.iter().map(|&parent| counts[parent]).collect();
            counts[number] = count(decisions, row_kind, size, parents);
            assert!(counts[number] <= coded_channels[basis.group(number)]);
        }
        let of_reference = match before {
            Before::Reference(reference) => Some(&reference[number][..]),
            _ => None,
        };
        let classes = classes(basis, size, row_kind == 2, of_reference);
        if basis.grid.is_none() {
            row_of_sequence(decisions, &classes, &mut sample.coded[number]);
        } else {
            let parents = basis.parents(number);
            row_of_grid(
                decisions,
                &classes[..counts[number]],
                number,
                &parents,
                &mut sample.coded,
            );
        }
    }
    sample
}

/// The class of each channel of a row of an expected size, by its reference if there is one.
fn classes(basis: &Basis, size: i32, names_another: bool, reference: Option<&[i32]>) -> Vec<usize> {
    if let Some(reference) = reference {
        return reference.iter().map(|q| 24 + sized(*q)).collect();
    }
    let of_channel = |more: &i8| {
        let class = (size + i32::from(*more) + 16).clamp(0, 23) as usize;
        class + if names_another { 28 } else { 0 }
    };
    basis.channel_sizes.iter().map(of_channel).collect()
}

/// The row that a row behind these names, and how many quarters of it are expected.
fn name(decisions: &mut Decisions, before: &[Row], nameable: usize) -> Option<(usize, i32)> {
    let before = before.last().and_then(|row| row.named);
    if !decisions.at(("names", [usize::from(before.is_some()), 0, 0])) {
        return None;
    }
    let next = before.filter(|(between, _)| *between > 0);
    let between = match next {
        Some((between, _)) if decisions.at(("next", [0; 3])) => between - 1,
        _ => decisions.even(length(nameable - 1)),
    };
    assert!(between < nameable);
    let quarters = if decisions.at(("whole", [0; 3])) {
        4
    } else if decisions.at(("more", [0; 3])) {
        3
    } else {
        2
    };
    Some((between, quarters))
}

/// The number of channels of a row of a grid.
fn count(decisions: &mut Decisions, kind: usize, size: i32, parents: Vec<usize>) -> usize {
    let without = parents.iter().filter(|count| **count == 0).count();
    let place = (size + 8).clamp(0, 15) as usize / 2;
    if decisions.at(("empty row", [kind, place, without])) {
        return 0;
    }
    let larger = length(parents.into_iter().max().unwrap_or(0)) as usize;
    let mut b = 1;
    while b < 16 && decisions.at(("longer", [kind, larger, b])) {
        b += 1;
    }
    if b == 1 {
        return 1;
    }
    let below = usize::from(decisions.at(("below the highest", [kind, b, 0])));
    let others = b as u32 - 2;
    (2 + below) << others | decisions.even(others)
}

fn row_of_grid(
    decisions: &mut Decisions,
    classes: &[usize],
    number: usize,
    parents: &[usize],
    coded: &mut [Vec<i32>],
) {
    for (channel, &class) in classes.iter().enumerate() {
        let before = |back: usize| {
            channel
                .checked_sub(back)
                .map_or(0, |at| sized(coded[number][at]))
        };
        let of_parents: usize = parents.iter().map(|&p| sized(coded[p][channel])).sum();
        let near = match 2 * (before(1) + of_parents) + before(2) {
            0 => 0,
            1..=2 => 1,
            3..=5 => 2,
            6..=9 => 3,
            _ => 4,
        };
        if channel + 1 == classes.len() || some(decisions, class, near) {
            coded[number][channel] = index(decisions, class);
        }
    }
}

fn row_of_sequence(decisions: &mut Decisions, classes: &[usize], coded: &mut [i32]) {
    let mut l = 100;
    for (index_here, &class) in coded.iter_mut().zip(classes) {
        let bounds = [8, 16, 32, 64, 128, 224, 400].iter();
        let near = 5 + bounds.filter(|bound| **bound <= l).count();
        if some(decisions, class, near) {
            *index_here = index(decisions, class);
        }
        l = l - l / 16 + 16 * sized(*index_here);
    }
}

fn some(decisions: &mut Decisions, class: usize, near: usize) -> bool {
    const X: [f64; 13] = [
        0.4, 0.8, 1.3, 2.0, 3.0, 0.15, 0.25, 0.4, 0.6, 0.9, 1.4, 2.0, 3.0,
    ];
    let power = |class: usize| ((class as f64 - 16.0) / 2.0).exp2();
    let m = match class {
        24..28 => 0.03,
        28.. => power(class - 28),
        _ => power(class),
    };
    let p = (65536.0 / (1.0 + m * X[near]))
        .floor()
        .clamp(128.0, 65408.0);
    decisions.from(p as u16, ("some", [class, near, 0]))
}

/// An index that is not zero.
fn index(decisions: &mut Decisions, class: usize) -> i32 {
    let mut m = 1;
    while m < 14 && decisions.at(("larger", [class / 4, m, 0])) {
        m += 1;
    }
    if m == 14 {
        let mut more = 0;
        while decisions.at(("much larger", [class / 4, more, 0])) {
            more += 1;
            assert!(more <= 26);
        }
        m = 13 + (1 << more | decisions.even(more as u32));
    }
    let m = i32::try_from(m).unwrap();
    if decisions.even(1) == 1 { -m } else { m }
}

/// A magnitude as far as it counts.
fn sized(index: i32) -> usize {
    index.unsigned_abs().min(3) as usize
}

/// The length of a number in bits.
fn length(x: usize) -> u32 {
    usize::BITS - x.leading_zeros()
}
