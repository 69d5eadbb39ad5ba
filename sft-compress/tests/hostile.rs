//! No bytes may make the decoder panic or allocate out of proportion.

mod common;

mod counting;

use std::sync::{Mutex, PoisonError};

use sft_compress::{Codec, ErrorKind, Range, TensorView, decode, decode_limited};

/// The most bytes held at once while `run` runs, by all threads that work for it.
fn most_held(run: impl FnOnce() + Send) -> isize {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(not(feature = "rayon"))]
    {
        counting::count_this_thread(true);
        let held = counting::most_held(run);
        counting::count_this_thread(false);
        held
    }
    #[cfg(feature = "rayon")]
    {
        use std::sync::LazyLock;
        static POOL: LazyLock<rayon::ThreadPool> = LazyLock::new(|| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(3)
                .start_handler(|_| counting::count_this_thread(true))
                .build()
                .unwrap()
        });
        POOL.install(|| counting::most_held(run))
    }
}

fn kind(frame: &[u8]) -> ErrorKind {
    decode(frame).unwrap_err().kind()
}

#[test]
fn frames_cut_anywhere_are_truncated() {
    for case in common::cases() {
        let frame = case.frame();
        for len in 0..frame.len() {
            assert_eq!(
                kind(&frame[..len]),
                ErrorKind::Truncated,
                "{} cut to {len}",
                case.name
            );
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    for case in common::cases() {
        let frame = case.frame();
        for bit in 0..8 * frame.len() {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..4 => &[ErrorKind::Corrupt][..],
                4 => &[ErrorKind::UnsupportedVersion],
                5..9 => &[ErrorKind::Truncated, ErrorKind::TrailingBytes],
                _ => &[ErrorKind::Checksum],
            };
            assert!(
                expected.contains(&kind(&damaged)),
                "{} bit {bit}",
                case.name
            );
        }
    }
}

#[test]
fn bytes_behind_a_frame_are_an_error() {
    for case in common::cases() {
        let mut frame = case.frame();
        frame.push(0);
        assert_eq!(kind(&frame), ErrorKind::TrailingBytes);
    }
}

/// A seeded stream of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0 ^ self.0 >> 29) * bound as u128) >> 64) as usize
    }

    fn mutate(&mut self, body: &mut Vec<u8>) {
        let at = self.below(body.len());
        match self.below(6) {
            0 => body[at] ^= 1 << self.below(8),
            1 => body[at] = self.below(256) as u8,
            2 => body[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            3 => body.insert(at, self.below(256) as u8),
            4 if body.len() > 1 => drop(body.remove(at)),
            _ => body.truncate(at.max(1)),
        }
    }
}

#[test]
fn mutated_bodies_with_a_valid_checksum_do_no_harm() {
    const ROUNDS: usize = 40_000;
    const MAX_ELEMENTS: usize = 4096;
    let cases = common::cases();
    let bodies: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| common::body(&case.frame()).to_vec())
        .collect();
    let mut random = Random(1);
    let (mut accepted, mut rejected) = (0, 0);
    for round in 0..ROUNDS {
        let mut body = bodies[round % bodies.len()].clone();
        for _ in 0..=random.below(3) {
            random.mutate(&mut body);
        }
        let frame = common::seal(&body);
        let held = most_held(|| match decode_limited(&frame, MAX_ELEMENTS) {
            Ok(tensor) => {
                accepted += 1;
                assert!(tensor.data().len() <= MAX_ELEMENTS);
            }
            Err(error) => {
                rejected += 1;
                let kinds = [
                    ErrorKind::Corrupt,
                    ErrorKind::TooLarge,
                    ErrorKind::UnsupportedVersion,
                    // Of method 3, whose basis is not there.
                    ErrorKind::LostReference,
                ];
                assert!(kinds.contains(&error.kind()), "{error}");
            }
        });
        let bound = 24 * MAX_ELEMENTS + 160 * frame.len() + (64 << 10);
        assert!(
            held <= bound.cast_signed(),
            "{held} bytes for a frame of {}",
            frame.len()
        );
    }
    // Both sides of the decoder's checks are reached.
    assert!(
        accepted > ROUNDS / 100 && rejected > ROUNDS / 4,
        "{accepted} {rejected}"
    );
}

#[test]
fn dense_frames_of_many_rows_keep_to_the_bound() {
    let data: Vec<f32> = (0..100_000_u32)
        .map(|i| f32::from(i % 7 == 0) + 1.0)
        .collect();
    let shape = [data.len(), 1];
    for keep in [1.0, 0.6, 0.4] {
        let codec = Codec::paper(keep, 2).unwrap().with_range(Range::Row);
        let view = TensorView::new(&data, &shape).unwrap();
        let frame = codec.encode(view, 1).unwrap();
        let held = most_held(|| drop(decode(&frame).unwrap()));
        let bound = 4 * data.len() + 160 * frame.len() + (64 << 10);
        assert!(
            held <= bound.cast_signed(),
            "{held} bytes for a frame of {}",
            frame.len()
        );
    }
}

/// A tensor of several chunks, which threads decode at the same time.
#[test]
fn chunks_that_are_decoded_at_once_keep_to_the_promise() {
    let data: Vec<f32> = (0..1 << 20_u32).map(|i| (i % 251) as f32 - 125.0).collect();
    let shape = [1 << 12, 1 << 8];
    for codec in [Codec::default(), Codec::gradient(0.2, 8).unwrap()] {
        let view = TensorView::new(&data, &shape).unwrap();
        let frame = codec.encode(view, 1).unwrap();
        let held = most_held(|| drop(decode_limited(&frame, data.len()).unwrap()));
        let bound = 24 * data.len() + 160 * frame.len() + (64 << 10);
        assert!(
            4 * data.len() <= held.cast_unsigned(),
            "{held} bytes counted"
        );
        assert!(held <= bound.cast_signed(), "{held} bytes of {bound}");
    }
}

/// The body of a paper frame up to the number of kept elements.
fn paper_start(shape: &[u8], levels: u8, kept: &[u8]) -> Vec<u8> {
    let dims = shape.iter().filter(|&&byte| byte < 0x80).count() as u8;
    [&[1, 0, 0, dims][..], shape, &[levels - 1], kept].concat()
}

const HUGE: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x07];

/// As many tables as there may be for so few elements.
#[test]
fn the_tables_of_a_model_keep_to_the_promise() {
    const ELEMENTS: usize = 98_304;
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(0x9e37_79b1).wrapping_add(1);
        f32::from((state >> 16) as u16) / 65_536.0 - 0.5
    };
    let data: Vec<f32> = (0..ELEMENTS)
        .map(|i| random() * (1 + i / 64 % 9) as f32)
        .collect();
    let view = TensorView::new(&data, &[ELEMENTS / 64, 64]).unwrap();
    let frame = Codec::activation(0.2, 8).unwrap().encode(view, 1).unwrap();
    let held = most_held(|| drop(decode_limited(&frame, ELEMENTS).unwrap()));
    let bound = 24 * ELEMENTS + 160 * frame.len() + (64 << 10);
    assert!(held <= bound.cast_signed(), "{held} bytes of {bound}");
}

#[test]
fn huge_claims_are_rejected_before_they_are_believed() {
    let five_halves: [u8; 4] = 2.5_f32.to_le_bytes();
    let span = [five_halves, five_halves].concat();
    for (body, expected) in [
        // 2³¹ − 1 elements in no bytes at all.
        (paper_start(&HUGE, 8, &[0]), ErrorKind::TooLarge),
        ([&[0, 0, 0, 1][..], &HUGE].concat(), ErrorKind::TooLarge),
        // Products that overflow, with and without a zero.
        (
            paper_start(&[HUGE, HUGE, HUGE].concat(), 8, &[0]),
            ErrorKind::TooLarge,
        ),
        (
            paper_start(&[&HUGE[..], &HUGE, &[0]].concat(), 8, &[0]),
            ErrorKind::TooLarge,
        ),
        // More kept than there are elements or sign bits.
        (paper_start(&[2], 8, &[3]), ErrorKind::Corrupt),
        (
            paper_start(&[0x80, 0x80, 0x40], 8, &[0x80, 0x80, 0x20]),
            ErrorKind::Corrupt,
        ),
        // A section longer than the body, and longer than any.
        (
            [paper_start(&[8], 8, &[1]), span.clone(), vec![1, 9, 1]].concat(),
            ErrorKind::Corrupt,
        ),
        (
            [
                paper_start(&[8], 8, &[1]),
                span.clone(),
                vec![1],
                HUGE.to_vec(),
            ]
            .concat(),
            ErrorKind::Corrupt,
        ),
        // A position behind the last element.
        (
            [
                paper_start(&[8], 8, &[1]),
                span.clone(),
                vec![8, 1, 0b0000_0010, 0],
            ]
            .concat(),
            ErrorKind::Corrupt,
        ),
        // Sign bits that belong to no element.
        (
            [paper_start(&[8], 8, &[1]), span, vec![8, 1, 0b0000_0001, 2]].concat(),
            ErrorKind::Corrupt,
        ),
    ] {
        let frame = common::seal(&body);
        let held = most_held(|| assert_eq!(kind(&frame), expected, "{body:?}"));
        assert!(held < 4096, "{held} bytes for {body:?}");
    }
}

#[test]
fn magnitudes_must_be_positive_finite_and_in_order() {
    for (lo, hi) in [
        (0.0, 1.0),
        (-1.0, 1.0),
        (2.0, 1.0),
        (1.0, f32::INFINITY),
        (f32::NAN, 1.0),
        (1.0, f32::NAN),
    ] {
        let mut body = paper_start(&[1], 8, &[1]);
        body.extend([lo.to_le_bytes(), hi.to_le_bytes()].concat());
        body.push(0);
        assert_eq!(kind(&common::seal(&body)), ErrorKind::Corrupt, "{lo} {hi}");
    }
}

#[test]
fn codes_of_later_versions_are_unsupported() {
    for body in [
        [4, 0, 0, 1, 0].as_slice(),
        &[3, 1, 0, 1, 0],
        &[0, 1, 0, 1, 0],
        &[1, 2, 0, 1, 0, 7, 0],
        &[0, 0, 3, 1, 0],
        &[2, 2, 0, 1, 0],
        &[2, 0, 0, 1, 1, 6],
    ] {
        assert_eq!(
            kind(&common::seal(body)),
            ErrorKind::UnsupportedVersion,
            "{body:?}"
        );
    }
    let mut frame = common::seal(&[0, 0, 0, 1, 0]);
    decode(&frame).unwrap();
    frame[4] = 2;
    assert_eq!(kind(&frame), ErrorKind::UnsupportedVersion);
}

#[test]
fn any_bytes_are_read_without_panic() {
    let mut random = Random(2);
    for _ in 0..20_000 {
        let body: Vec<u8> = (0..random.below(64))
            .map(|_| random.below(256) as u8)
            .collect();
        let _ = decode(&body);
        let method = [random.below(3) as u8, 0, 0, 1 + random.below(2) as u8];
        let _ = decode_limited(&common::seal(&[&method[..], &body].concat()), 1 << 16);
    }
}
