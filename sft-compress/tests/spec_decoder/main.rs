//! A decoder written from `FORMAT.md` alone, slow and plain, must read what the encoders write.

#[path = "../common/mod.rs"]
mod common;
mod context;
mod fields;
mod frame;
mod frames;
mod paper;
mod transform;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}
