#![allow(
    clippy::inline_always,
    reason = "compiled with the instructions of the loop around it"
)]

use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The largest finite number.
    pub(crate) fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => 65_504.0,
            Self::Bf16 => bf16_to_f32(0x7f7f),
        }
    }

    /// A finite number, or the largest of its sign if this type has none so large.
    pub(crate) fn saturate(self, x: f32) -> f32 {
        if x.is_finite() {
            x.clamp(-self.largest(), self.largest())
        } else {
            x
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// The value of half-precision bits, exactly; a NaN keeps its payload.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    // Subnormal: a multiple of 2⁻²⁴, exact in `f32`.
    let subnormal = (rest as f32 * (1.0 / (1 << 24) as f32)).to_bits();
    // The exponents are biased by 15 and 127, and all ones if not finite.
    let normal = (rest << 13) + (112 << 23);
    let not_finite = normal + (112 << 23);
    let magnitude = match rest >> 10 {
        0 => subnormal,
        31 => not_finite,
        _ => normal,
    };
    f32::from_bits(sign | magnitude)
}

/// The nearest half-precision number, ties to even; overflow is infinity and
/// a NaN keeps the upper bits of its payload.
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let bits = x.to_bits() & 0x7fff_ffff;
    if bits > 0x7f80_0000 {
        let payload = (bits >> 13) as u16 & 0x3ff;
        return sign | 0x7c00 | payload | u16::from(payload == 0) << 9;
    }
    if bits >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if bits < 0x3880_0000 {
        // Adding 1/2 leaves the multiple of 2⁻²⁴ in the lowest bits, rounded
        // by the addition itself.
        let shifted = f32::from_bits(bits) + 0.5;
        return sign | (shifted.to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    sign | ((rounded >> 13) - (112 << 10)) as u16
}

/// The value of bfloat16 bits, exactly.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16 number, ties to even; a NaN keeps the upper bits of
/// its payload.
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        let upper = (bits >> 16) as u16;
        return upper | u16::from(upper.trailing_zeros() >= 7) << 6;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f16_by_definition(bits: u16) -> f64 {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(-24),
            _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
        };
        if bits >> 15 == 1 {
            -magnitude
        } else {
            magnitude
        }
    }

    #[test]
    fn every_half_is_exact_and_comes_back() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            if bits & 0x7c00 != 0x7c00 {
                assert_eq!(f64::from(x).to_bits(), f16_by_definition(bits).to_bits());
            }
            assert_eq!(f32_to_f16(x), bits);
            assert_eq!(f32_to_bf16(bf16_to_f32(bits)), bits);
        }
    }

    #[test]
    fn rounding_is_to_nearest_and_even() {
        for bits in 0..0x7bff_u16 {
            let (a, b) = (f16_to_f32(bits), f16_to_f32(bits + 1));
            let middle = f32::midpoint(a, b);
            assert_eq!(f32_to_f16(middle), bits + (bits & 1), "{bits:x}");
            assert_eq!(f32_to_f16(middle.next_down()), bits);
            assert_eq!(f32_to_f16(-middle.next_up()), 0x8000 | (bits + 1));
        }
        for bits in (0..0x7f7f_u16).step_by(7) {
            let middle = f32::from_bits(u32::from(bits) << 16 | 0x8000);
            assert_eq!(f32_to_bf16(middle), bits + (bits & 1));
            assert_eq!(f32_to_bf16(middle.next_up()), bits + 1);
        }
        assert_eq!(f32_to_f16(65519.0), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert!(f16_to_f32(f32_to_f16(f32::NAN)).is_nan());
        assert!(f16_to_f32(f32_to_f16(f32::from_bits(0x7f80_0001))).is_nan());
        assert!(bf16_to_f32(f32_to_bf16(f32::from_bits(0xff80_0001))).is_nan());
    }
}
