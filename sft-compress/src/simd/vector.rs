/// 32-bit numbers of a vector.
pub(super) const N: usize = 16;

/// Sixteen 32-bit numbers, as an instruction set works with them. The
/// implementing type is only made where the processor has the instructions.
///
/// All methods compile to a few instructions, but only where they are inlined
/// into a function with the `#[target_feature]`s of the set: kernels are
/// `#[inline(always)]`, without closures, and started by `with_vector!`.
pub(super) trait Vector: Copy {
    /// The numbers, unsigned.
    type Numbers: Copy;
    /// Some of the numbers.
    type Mask: Copy;

    /// # Safety
    /// 16 numbers are readable.
    unsafe fn load(self, from: *const u32) -> Self::Numbers;

    /// # Safety
    /// 16 numbers are writable.
    unsafe fn store(self, x: Self::Numbers, to: *mut u32);

    /// The numbers of the table at each index.
    ///
    /// # Safety
    /// Each index is below the table's length.
    unsafe fn gather(self, table: &[u32], index: Self::Numbers) -> Self::Numbers;

    /// Writes the numbers of the mask of each vector, in order, and anything
    /// behind them. Returns how many they are.
    ///
    /// # Safety
    /// 16 numbers are writable at each place.
    unsafe fn store_packed(
        self,
        mask: Self::Mask,
        x: [Self::Numbers; 2],
        to: [*mut u32; 2],
    ) -> usize;

    /// The bytes as numbers.
    fn load_u8(self, from: &[u8; N]) -> Self::Numbers;

    /// The bytes as numbers, of which negative ones have all upper bits.
    fn load_i8(self, from: &[i8; N]) -> Self::Numbers;

    /// Which of the bytes are positive, and which negative.
    fn signs(self, of: &[i8; N]) -> (Self::Mask, Self::Mask);

    /// The upper byte of each number.
    fn upper_bytes(self, x: Self::Numbers) -> [i8; N];

    /// For each number of the mask the next of the words, and anything in the
    /// others' place.
    fn load_words(self, mask: Self::Mask, words: &[u8; 2 * N]) -> Self::Numbers;

    /// Writes the lower half of each number of the mask, in order, so that they
    /// end at word `at`, and anything into the 8 words before them. Returns where
    /// they start.
    fn store_words_before(
        self,
        mask: Self::Mask,
        x: Self::Numbers,
        words: &mut [u16],
        at: usize,
    ) -> usize;

    /// The same number everywhere.
    fn splat(self, x: u32) -> Self::Numbers;

    /// 0, 1, …, 15.
    fn iota(self) -> Self::Numbers;

    fn add(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn sub(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    /// The lower half of the product.
    fn mul(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn and(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn or(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn min(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn max(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn shl<const BITS: u32>(self, x: Self::Numbers) -> Self::Numbers;

    fn shr<const BITS: u32>(self, x: Self::Numbers) -> Self::Numbers;

    /// The magnitude of a signed number.
    fn magnitude(self, x: Self::Numbers) -> Self::Numbers;

    /// `a` / `b` in single precision, times a factor, rounded down to a number
    /// below 2³¹.
    fn scaled_quotient(self, a: Self::Numbers, b: Self::Numbers, factor: f32) -> Self::Numbers;

    /// The numbers of a table of 16; an index counts modulo 16.
    fn look_up(self, table: Self::Numbers, index: Self::Numbers) -> Self::Numbers;

    /// Where `a` < `b`.
    fn less(self, a: Self::Numbers, b: Self::Numbers) -> Self::Mask;

    /// Where `a` ≥ `b`, as signed numbers.
    fn at_least_signed(self, a: Self::Numbers, b: Self::Numbers) -> Self::Mask;

    /// `a` in the mask, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;

    fn count(self, mask: Self::Mask) -> usize;
}

/// Methods of the trait, each compiled with the instructions of the set.
macro_rules! methods {
    ($features:literal; $(
        fn $name:ident$(<const $bits:ident: u32>)?($($arg:ident: $type:ty),*) -> $out:ty $body:block
    )*) => {$(
        #[inline(always)]
        fn $name$(<const $bits: u32>)?(self, $($arg: $type),*) -> $out {
            #[inline]
            #[target_feature(enable = $features)]
            fn body$(<const $bits: u32>)?($($arg: $type),*) -> $out $body
            // SAFETY: `self` is only made where the processor has the instructions.
            unsafe { body$(::<$bits>)?($($arg),*) }
        }
    )*};
}
pub(super) use methods;
