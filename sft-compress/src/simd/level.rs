use std::sync::OnceLock;

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
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
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

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
fn detected() -> [Option<Kind>; 3] {
    let avx2 = is_x86_feature_detected!("avx2")
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
        avx2.then_some(Kind::Avx2),
        avx512.then_some(Kind::Avx512),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> [Option<Kind>; 1] {
    [Some(Kind::Scalar)]
}
