//! The element types that mathematics is written in: `f32`, `f64` and [`Dual`](super::Dual).

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// Which element type a program computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision, the default.
    F32,
    /// IEEE double precision, for proofs on the CPU.
    F64,
    /// Dual numbers over doubles, for exact Hessian-vector products.
    #[serde(skip)]
    Dual,
}

impl Precision {
    /// Returns the size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
            Precision::Dual => 16,
        }
    }
}

/// A real number as layers see it. Comparisons look at the value, never at a derivative.
pub trait Real:
    Copy
    + Debug
    + Default
    + Send
    + Sync
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + 'static
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The precision this type stands for.
    const PRECISION: Precision;
    /// Rounds a double to this type.
    fn from_f64(x: f64) -> Self;
    /// Returns the value as a double.
    fn to_f64(self) -> f64;
    /// e to the power of self.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Self to a constant power.
    fn powf(self, exponent: f64) -> Self;
    /// The larger of two values; the first when they are equal.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

macro_rules! real {
    ($type:ty, $precision:expr) => {
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const PRECISION: Precision = $precision;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn exp(self) -> Self {
                <$type>::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                <$type>::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$type>::sqrt(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                <$type>::tanh(self)
            }
            #[inline(always)]
            fn powf(self, exponent: f64) -> Self {
                <$type>::powf(self, exponent as $type)
            }
        }
    };
}
real!(f32, Precision::F32);
real!(f64, Precision::F64);
