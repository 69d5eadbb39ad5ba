//! What every fuzz target asks of a frame.

#[path = "../../tests/counting/mod.rs"]
mod counting;

use sft_compress::{Decoder, Tensor, decode_limited, inspect};

/// Limit given to the decoder: several chunks of context-coded elements.
const MAX_ELEMENTS: usize = 1 << 15;

/// Decodes, within the promised memory; whatever decodes is the same by parts.
///
/// # Panics
/// If a promise is broken.
pub fn check(frame: &[u8]) {
    counting::count_this_thread(true);
    let (mut decoded, mut info) = (None, None);
    let held = counting::most_held(|| decoded = Some(decode_limited(frame, MAX_ELEMENTS)));
    promised(held, 24 * MAX_ELEMENTS + 160 * frame.len() + (64 << 10));
    let held = counting::most_held(|| info = Some(inspect(frame)));
    promised(held, 160 * frame.len() + (64 << 10));
    if let Some(Ok(tensor)) = decoded {
        let info = info.expect("inspected").expect("what decodes can be inspected");
        assert_eq!(
            (&info.shape[..], info.dtype),
            (tensor.shape(), tensor.dtype())
        );
        by_chunks(frame, info.chunks, &tensor);
    }
}

fn promised(held: isize, bound: usize) {
    assert!(
        held <= bound.cast_signed(),
        "{held} bytes held, promised {bound}"
    );
}

fn by_chunks(frame: &[u8], chunks: usize, tensor: &Tensor) {
    let mut decoder = Decoder::new().with_max_elements(MAX_ELEMENTS);
    let (mut part, mut end) = (Vec::new(), 0);
    let bits = |data: &[f32]| -> Vec<u32> { data.iter().map(|x| x.to_bits()).collect() };
    for chunk in 0..chunks {
        let range = decoder
            .decode_chunk(frame, chunk, &mut part)
            .expect("the whole decodes");
        assert_eq!(range.start, end);
        assert_eq!(bits(&part), bits(&tensor.data()[range.clone()]));
        end = range.end;
    }
    assert_eq!(end, tensor.data().len());
}

/// Checks the body of `input` as one of `method`, in an envelope that is right:
/// length and checksum do not keep what is mutated from the decoder.
pub fn check_body(input: &[u8], method: u8) {
    let Some(body) = input.get(9..input.len().saturating_sub(4)) else {
        return;
    };
    let mut frame = b"SFTZ\x01".to_vec();
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(body);
    if let Some(first) = frame.get_mut(9) {
        *first = method;
    }
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    check(&frame);
}
