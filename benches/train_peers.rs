//! A training step beside PyTorch: time, memory, share of the peak; memory of the device's half
//! beside the cost model; many devices with one server.
//!
//! `make train-peers` sets up PyTorch and keeps the result. Prints Markdown; `SFT_PEERS_PYTHON`
//! names a Python that has torch, transformers and peft, `--repeats N` how often every side has its
//! turn. Without that Python, and as a test, every part runs once on a small model.

fn main() -> sft_benches::Outcome<()> {
    sft_benches::train::main(env!("CARGO_BIN_EXE_device_memory"))
}
