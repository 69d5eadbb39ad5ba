//! Blocks put together as the families of models do: candle's operations against difference
//! quotients, the engine against candle's operations.

mod blocks;
mod plain;
