//! Blocks put together as the families of models do: candle's operations against difference
//! quotients, the engine against candle's operations, padding against samples alone.

mod blocks;
mod engine;
mod padding;
mod plain;
mod refusals;
