//! Benchmarks of the sft crates, as criterion targets beside this file.
