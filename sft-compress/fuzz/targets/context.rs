//! Bodies of method 2, context.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sft_compress_fuzz::check_body(input, 2));
