use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// The vector instructions that a kernel may use.
///
/// Only made where the processor has them, which is what makes calling the
/// kernels sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Level {
    /// None at all.
    pub(crate) const SCALAR: Self = Self(Kind::Scalar);

    /// The best of this processor, or less if the environment variable
    /// `SFT_SIMD` is `scalar` or `avx2`.
    pub(crate) fn best() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let wanted = std::env::var("SFT_SIMD");
            let levels = Self::all().take(match wanted.as_deref() {
                Ok("scalar") => 1,
                Ok("avx2") => 2,
                _ => usize::MAX,
            });
            levels.last().unwrap_or(Self::SCALAR)
        })
    }

    /// All levels of this processor, the least first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        detected().into_iter().flatten().map(Self)
    }

    /// Whether it has 32 registers of 16 numbers.
    pub(super) fn is_wide(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => true,
            _ => false,
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
fn detected() -> [Option<Kind>; 3] {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    [
        Some(Kind::Scalar),
        // SAFETY: it has the instructions.
        avx2.then(|| Kind::Avx2(unsafe { Avx2::new() })),
        // SAFETY: as above.
        avx512.then(|| Kind::Avx512(unsafe { Avx512::new() })),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> [Option<Kind>; 1] {
    [Some(Kind::Scalar)]
}

/// Calls a kernel with the vector of a level, compiled for its instructions, or
/// does `$scalar` where it has none.
macro_rules! with_vector {
    ($level:expr, $($kernel:ident)::+($($arg:ident: $type:ty),*) -> $out:ty, else $scalar:expr) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        fn avx2(vector: crate::simd::avx2::Avx2, $($arg: $type),*) -> $out {
            $($kernel)::+(vector, $($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
        fn avx512(vector: crate::simd::avx512::Avx512, $($arg: $type),*) -> $out {
            $($kernel)::+(vector, $($arg),*)
        }
        match $level.kind() {
            // SAFETY: the processor has the instructions of the level.
            #[cfg(target_arch = "x86_64")]
            crate::simd::level::Kind::Avx512(vector) => unsafe { avx512(vector, $($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::simd::level::Kind::Avx2(vector) => unsafe { avx2(vector, $($arg),*) },
            _ => {
                // They are not used where no level has vectors.
                let _ = ($(&$arg,)*);
                $scalar
            }
        }
    }};
}
pub(super) use with_vector;
