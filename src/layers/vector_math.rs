//! Functions of one element that can be vectorised in f32; in f64 and in dual numbers they are exact.

use crate::tensor::{Precision, Real};

/// Hyperbolic tangent. In f32 it is a rational function that can be vectorised, tens of times faster than the
/// standard library's.
#[inline(always)]
pub(super) fn tanh<T: Real>(x: T) -> T {
    match T::PRECISION {
        // The compiler removes the casts to f64 and back.
        Precision::F32 => T::from_f64(f64::from(tanh_f32(x.to_f64() as f32))),
        _ => x.tanh(),
    }
}

/// Eigen's quotient of polynomials of degrees 13 and 6 (<https://eigen.tuxfamily.org>), with a relative error within
/// 6e-7. Beyond +-7.9 the result is +-1 in f32; close to 0 the quotient would be less accurate than x itself.
#[inline(always)]
fn tanh_f32(x: f32) -> f32 {
    const ODD: [f32; 7] =
        [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
    const EVEN: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    let near = if x.abs() < 4e-4 { x } else { 0.0 };
    let x = if x > 7.905_311 { 7.905_311 } else { x };
    let x = if x < -7.905_311 { -7.905_311 } else { x };
    let square = x * x;
    let odd = ODD.iter().fold(0.0, |sum, &a| sum * square + a);
    let even = EVEN.iter().fold(0.0, |sum, &b| sum * square + b);
    if near != 0.0 { near } else { x * odd / even }
}

/// Logistic sigmoid. In f32 it uses an exponential that can be vectorised. With tanh it could not overflow, but
/// small values would lose precision.
#[inline(always)]
pub(super) fn sigmoid<T: Real>(x: T) -> T {
    let half = T::from_f64(0.5);
    match T::PRECISION {
        Precision::F32 => T::from_f64(f64::from(1.0 / (1.0 + exp_f32(-x.to_f64() as f32)))),
        _ => half + half * (half * x).tanh(),
    }
}

/// e^x.
#[inline(always)]
pub(super) fn exp<T: Real>(x: T) -> T {
    match T::PRECISION {
        Precision::F32 => T::from_f64(f64::from(exp_f32(x.to_f64() as f32))),
        _ => x.exp(),
    }
}

/// e^x - 1 for x of at most 0, without cancellation: 2 t / (1 - t) with t = tanh(x / 2).
#[inline(always)]
pub(super) fn exp_m1<T: Real>(x: T) -> T {
    let t = tanh(T::from_f64(0.5) * x);
    (t + t) / (T::ONE - t)
}

/// ln(1 + e^x), which does not overflow.
#[inline(always)]
pub(super) fn softplus<T: Real>(x: T) -> T {
    let size = if x > T::ZERO { x } else { -x };
    let e = exp(-size);
    // Near 0, 1 + e would lose digits of e, and the first terms of the series are enough.
    let near = T::from_f64(if T::PRECISION == Precision::F32 { 1e-2 } else { 1e-4 });
    let series = [1.0 / 5.0, -1.0 / 4.0, 1.0 / 3.0, -1.0 / 2.0, 1.0];
    let series = series.into_iter().fold(T::ZERO, |sum, a| (sum * e) + T::from_f64(a)) * e;
    let log = if e < near { series } else { (T::ONE + e).ln() };
    if x > T::ZERO { x + log } else { log }
}

/// Error function. In f32 it is a rational function that can be vectorised.
#[inline(always)]
pub(super) fn erf<T: Real>(x: T) -> T {
    match T::PRECISION {
        Precision::F32 => T::from_f64(f64::from(erf_f32(x.to_f64() as f32))),
        _ => x.erf(),
    }
}

/// Eigen's quotient of polynomials of degrees 13 and 8 (<https://eigen.tuxfamily.org>). Beyond +-4 the result is +-1 in f32.
#[inline(always)]
fn erf_f32(x: f32) -> f32 {
    const ODD: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const EVEN: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let odd = ODD.iter().fold(0.0, |sum, &a| sum * square + a);
    let even = EVEN.iter().fold(0.0, |sum, &b| sum * square + b);
    x * odd / even
}

/// e^x = 2^n e^r with a polynomial for e^r, |r| <= ln 2 / 2 (coefficients from Cephes,
/// <https://www.netlib.org/cephes/>), with a relative error within 2e-7. x is clamped to the range of normal floats.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const TERMS: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5];
    // Adding this rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 is split into two parts so that n times the first is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let sum = TERMS.iter().fold(0.0, |sum, &a| sum * r + a);
    let power = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    (sum * r * r + r + 1.0) * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_exponential_is_within_four_roundings() {
        for i in -86_999..88_000 {
            let x = i as f32 * 1e-3;
            let (quick, exact) = (f64::from(exp_f32(x)), f64::from(x).exp());
            assert!((quick - exact).abs() <= 2.4e-7 * exact, "{x}: {quick}, expected {exact}");
        }
        assert!(exp_f32(f32::NAN).is_nan());
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn the_quick_error_function_is_within_eight_roundings() {
        for i in -100_000..=100_000 {
            let x = i as f32 * 5e-5;
            let (quick, exact) = (f64::from(erf_f32(x)), libm::erf(f64::from(x)));
            assert!((quick - exact).abs() <= 4e-7 * exact.abs().max(1e-3), "{x}: {quick}, expected {exact}");
        }
        assert!(erf_f32(f32::NAN).is_nan());
    }

    #[test]
    fn functions_near_their_limits_keep_their_digits() {
        for x in [-60.0, -20.0, -9.3, -1.0, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 1.0, 9.3, 20.0, 60.0] {
            let near = |ours: f64, exact: f64, tolerance: f64| (ours - exact).abs() <= tolerance * exact.abs();
            assert!(near(exp_m1(x), x.exp_m1(), 4e-15) || x > 0.0, "{x}");
            assert!(near(f64::from(exp_m1(x as f32)), f64::from(x as f32).exp_m1(), 2e-6) || x > 0.0, "{x}");
            assert!(near(softplus(x), x.max(0.0) + (-x.abs()).exp().ln_1p(), 2e-12), "{x}");
            let exact = f64::from(x as f32).max(0.0) + (-f64::from(x as f32).abs()).exp().ln_1p();
            assert!(near(f64::from(softplus(x as f32)), exact, 1e-5), "{x}");
        }
    }

    #[test]
    fn the_quick_tanh_is_within_ten_roundings() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 5e-5;
            let (quick, exact) = (f64::from(tanh_f32(x)), f64::from(x).tanh());
            assert!((quick - exact).abs() <= 6e-7 * exact.abs(), "{x}: {quick}, expected {exact}");
        }
        assert_eq!([1e-20, -3e-5, 50.0, f32::NEG_INFINITY].map(tanh_f32), [1e-20, -3e-5, 1.0, -1.0]);
        assert!(tanh_f32(f32::NAN).is_nan());
    }
}
