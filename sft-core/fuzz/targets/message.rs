//! Messages between device and server: the first byte is the kind, the rest the body.
#![no_main]

use sft_core::split::message::{Message, VERSION};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // Length and checksum that are right do not keep what is mutated from the reader.
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    let mut bytes = [b"SFTM".as_slice(), &[VERSION, *kind]].concat();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let Ok(message) = Message::decode(&bytes) else {
        return;
    };
    let again = message.encode().expect("what is read can be written");
    // A plan's JSON has many forms.
    if !matches!(message, Message::Plan(_)) {
        assert_eq!(again, bytes);
    }
});
