//! Bytes as they come.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sft_compress_fuzz::check(input));
