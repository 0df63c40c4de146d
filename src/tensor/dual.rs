//! Dual numbers a + b e with e^2 = 0: forward-mode derivatives.
//!
//! Running the backward pass in duals whose derivative part is a direction v gives the gradient and, in its
//! derivative part, the exact Hessian-vector product H v (Pearlmutter 1994,
//! <https://doi.org/10.1162/neco.1994.6.1.147>).

use super::real::{Precision, Real};
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// A value and its derivative along one direction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Dual {
    /// The value.
    pub re: f64,
    /// The derivative.
    pub eps: f64,
}

impl Dual {
    /// Applies a function with value `f` and derivative `df` at this point.
    #[inline(always)]
    fn chain(self, f: f64, df: f64) -> Self {
        Dual { re: f, eps: df * self.eps }
    }
}

impl PartialOrd for Dual {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.re.partial_cmp(&other.re)
    }
}

impl Add for Dual {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Dual { re: self.re + o.re, eps: self.eps + o.eps }
    }
}

impl Sub for Dual {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        Dual { re: self.re - o.re, eps: self.eps - o.eps }
    }
}

impl Mul for Dual {
    type Output = Self;
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Dual { re: self.re * o.re, eps: self.re * o.eps + self.eps * o.re }
    }
}

impl Div for Dual {
    type Output = Self;
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        let re = self.re / o.re;
        Dual { re, eps: (self.eps - re * o.eps) / o.re }
    }
}

impl Neg for Dual {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Dual { re: -self.re, eps: -self.eps }
    }
}

impl AddAssign for Dual {
    #[inline(always)]
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl SubAssign for Dual {
    #[inline(always)]
    fn sub_assign(&mut self, o: Self) {
        *self = *self - o;
    }
}

impl MulAssign for Dual {
    #[inline(always)]
    fn mul_assign(&mut self, o: Self) {
        *self = *self * o;
    }
}

impl Real for Dual {
    const ZERO: Self = Dual { re: 0.0, eps: 0.0 };
    const ONE: Self = Dual { re: 1.0, eps: 0.0 };
    const PRECISION: Precision = Precision::Dual;
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        Dual { re: x, eps: 0.0 }
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.re
    }
    fn exp(self) -> Self {
        let e = self.re.exp();
        self.chain(e, e)
    }
    fn ln(self) -> Self {
        self.chain(self.re.ln(), 1.0 / self.re)
    }
    fn sqrt(self) -> Self {
        let r = self.re.sqrt();
        self.chain(r, 0.5 / r)
    }
    fn tanh(self) -> Self {
        let t = self.re.tanh();
        self.chain(t, 1.0 - t * t)
    }
    fn erf(self) -> Self {
        self.chain(libm::erf(self.re), std::f64::consts::FRAC_2_SQRT_PI * (-self.re * self.re).exp())
    }
    fn powf(self, exponent: f64) -> Self {
        self.chain(self.re.powf(exponent), exponent * self.re.powf(exponent - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_differences() {
        let f = |x: Dual| (x * x).exp() / (x.tanh() + Dual::ONE) + x.powf(1.75).sqrt() - x.ln() * x.erf();
        let (x, h) = (0.7, 1e-6);
        let exact = f(Dual { re: x, eps: 1.0 }).eps;
        let near = (f(Dual::from_f64(x + h)).re - f(Dual::from_f64(x - h)).re) / (2.0 * h);
        assert!((exact - near).abs() < 1e-8, "{exact} {near}");
    }
}
