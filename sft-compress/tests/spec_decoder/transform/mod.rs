//! Method 3.

mod basis;
mod decisions;
mod indices;
mod receiver;
mod samples;
mod streams;
