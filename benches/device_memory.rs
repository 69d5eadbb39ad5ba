//! What a device's half allocates, as `train_peers` asks for it.
//!
//! A program of its own, since the allocator that counts also clears what the system would have
//! handed out cleared, which takes time.

#[global_allocator]
static ALLOCATOR: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

fn main() -> sft_benches::Outcome<()> {
    sft_benches::train::instrumented()
}
