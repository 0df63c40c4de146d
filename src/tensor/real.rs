//! The element types that layers are generic over: `f32`, `f64` and [`Dual`](super::Dual).

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// The element type that a program computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision, the default.
    F32,
    /// IEEE double precision, for checks on the CPU.
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

/// The element type of values in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// The type that the program computes in.
    Real(Precision),
    /// The upper half of an f32, rounded to nearest, ties to even: activations of GPUs in mixed precision.
    Bf16,
}

impl Element {
    /// Single precision.
    pub const F32: Element = Element::Real(Precision::F32);

    /// Returns the size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Element::Real(precision) => precision.bytes(),
            Element::Bf16 => 2,
        }
    }
}

/// How GPUs round the factors of matrix products, and the type in which they store activations. Parameters, their
/// gradients, the optimiser's state, statistics and all sums are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulPrecision {
    /// No rounding: the element type of the program.
    #[default]
    Full,
    /// Factors are rounded to tf32 (10 bits of fraction) when they are loaded into tensor cores; memory holds f32.
    Tf32,
    /// Activations, their gradients and a copy of the weights are bf16.
    Bf16,
}

impl MatmulPrecision {
    /// Returns the name in files of a program that computes in `precision` with this rounding.
    pub fn name(self, precision: Precision) -> &'static str {
        match (self, precision) {
            (MatmulPrecision::Tf32, _) => "tf32",
            (MatmulPrecision::Bf16, _) => "bf16",
            (MatmulPrecision::Full, Precision::F32) => "f32",
            (MatmulPrecision::Full, Precision::F64) => "f64",
            (MatmulPrecision::Full, Precision::Dual) => "dual",
        }
    }

    /// Returns the element type of activations in memory when the program computes in `precision`.
    pub fn activations(self, precision: Precision) -> Element {
        if self == MatmulPrecision::Bf16 { Element::Bf16 } else { Element::Real(precision) }
    }
}

/// The interface of element types. Comparisons consider the value, never the derivative.
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
    /// The precision of this type.
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
    /// Error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to self.
    fn erf(self) -> Self;
    /// Returns self to a constant power.
    fn powf(self, exponent: f64) -> Self;
    /// Returns the larger of two values; the first if they are equal.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
    /// Returns the smaller of two values; the first if they are equal.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if other < self { other } else { self }
    }
}

macro_rules! real {
    ($type:ty, $precision:expr, $erf:path) => {
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
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn powf(self, exponent: f64) -> Self {
                <$type>::powf(self, exponent as $type)
            }
        }
    };
}
real!(f32, Precision::F32, libm::erff);
real!(f64, Precision::F64, libm::erf);
