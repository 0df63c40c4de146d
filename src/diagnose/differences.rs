//! Judges a derivative by differences of the function, without being misled by kinks or rounding.
//!
//! With F(h) = (f(w + h) - f(w - h)) / 2h, a derivative that agrees with F(h) is right. One that does not may be wrong, or
//! a relu or max_pool may have its kink between w - h and w + h. So the step is reduced. Where f is smooth, F stays the
//! same, and the asymmetry A(h) = (f(w + h) - 2 f(w) + f(w - h)) / h shrinks with h, as it measures curvature. A kink at a
//! distance from w changes F, and a kink at w leaves A as it is. By the bounds below, a single kink that changes F by
//! more than the tolerance always shows in one of the two.

/// Values of a function at w + h and w - h.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sides {
    pub h: f64,
    pub plus: f64,
    pub minus: f64,
}

impl Sides {
    /// Returns the central difference F.
    pub fn central(&self) -> f64 {
        (self.plus - self.minus) / (2.0 * self.h)
    }

    /// Returns the asymmetry A, given f(w).
    fn asymmetry(&self, center: f64) -> f64 {
        ((self.plus - center) - (center - self.minus)) / self.h
    }
}

/// Returns true if the differences at two steps are those of a function without kinks, to within `slack`. The narrow
/// step is at most half the wide one. A single kink then changes the narrow difference by at most 2 `slack`.
pub(super) fn is_smooth(wide: &Sides, narrow: &Sides, center: f64, slack: f64) -> bool {
    let shrunk = narrow.h / wide.h * wide.asymmetry(center);
    (wide.central() - narrow.central()).abs() <= slack && (narrow.asymmetry(center) - shrunk).abs() <= slack
}

/// What differences say about a derivative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Its distance from them.
    Compared(f64),
    /// A kink is too near.
    Kink,
}

/// A derivative at a coordinate, as another method computed it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Claim {
    /// The derivative.
    pub value: f64,
    /// The function at w.
    pub center: f64,
    /// The largest distance that counts as agreement.
    pub allowed: f64,
    /// The rounding error of the function.
    pub rounding: f64,
}

impl Claim {
    /// Judges the claim by differences at smaller and smaller steps, which are computed as needed: `steps` are pairs of a
    /// step and a narrower one. Agreement at any of them counts. A disagreement counts only if it is still there, on a
    /// smooth function, at the last step that rounding permits.
    pub fn judge<E>(&self, steps: &[[f64; 2]], mut sides: impl FnMut(f64) -> Result<Sides, E>) -> Result<Verdict, E> {
        let distance = |sides: &Sides| (sides.central() - self.value).abs();
        let (mut least, mut verdict) = (f64::INFINITY, Verdict::Kink);
        for (level, pair) in steps.iter().enumerate() {
            // The first step is chosen so that rounding does not matter.
            if level > 0 && self.rounding / pair[1] > self.allowed / 2.0 {
                break;
            }
            let mut at = |h| {
                let sides = sides(h)?;
                least = least.min(distance(&sides));
                Ok(sides)
            };
            // What is barely allowed may be due to a kink that a smaller step avoids.
            let wide = at(pair[0])?;
            if distance(&wide) <= self.allowed / 10.0 {
                break;
            }
            let narrow = at(pair[1])?;
            if distance(&narrow) <= self.allowed / 10.0 {
                break;
            }
            verdict = match is_smooth(&wide, &narrow, self.center, self.allowed / 2.0) {
                true => Verdict::Compared(distance(&narrow)),
                false => Verdict::Kink,
            };
        }
        Ok(if least <= self.allowed { Verdict::Compared(least) } else { verdict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const STEPS: [[f64; 2]; 2] = [[1e-3, 5e-4], [2e-5, 1e-5]];
    const ALLOWED: f64 = 1e-5;

    /// Judges a derivative of f at 0.
    fn judged(f: impl Fn(f64) -> f64, value: f64) -> Verdict {
        let claim = Claim { value, center: f(0.0), allowed: ALLOWED, rounding: 1e-16 };
        claim.judge(&STEPS, |h| Ok::<_, Infallible>(Sides { h, plus: f(h), minus: f(-h) })).unwrap()
    }

    /// A smooth function with derivative 2 at 0, and a relu of slope 1 with its kink at `at`.
    fn kinked(at: f64) -> impl Fn(f64) -> f64 {
        move |w| (2.0 * w).exp() + (w - at).max(0.0)
    }

    fn is_evidence_against(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Compared(distance) if distance > ALLOWED)
    }

    #[test]
    fn a_right_derivative_agrees_and_a_wrong_one_does_not() {
        let f = |w: f64| (2.0 * w).exp();
        assert!(matches!(judged(f, 2.0), Verdict::Compared(distance) if distance < ALLOWED));
        for wrong in [2.0 + 1e-4, 2.0 - 1e-4, 0.0, -2.0] {
            let Verdict::Compared(distance) = judged(f, wrong) else { panic!("{wrong} is not judged") };
            assert!((distance - (wrong - 2.0).abs()).abs() < ALLOWED);
        }
    }

    #[test]
    fn a_kink_at_any_distance_is_no_evidence_against_a_right_derivative() {
        for i in -200..=200 {
            let at = f64::from(i) * 6e-6;
            let verdict = judged(kinked(at), if at < 0.0 { 3.0 } else { 2.0 });
            assert!(!is_evidence_against(verdict), "kink at {at}: {verdict:?}");
        }
        // A smaller step avoids the second of these kinks, but no step the first.
        assert_eq!(judged(kinked(0.0), 2.0), Verdict::Kink);
        assert!(matches!(judged(kinked(1e-4), 2.0), Verdict::Compared(distance) if distance < ALLOWED));
        // Where a smaller step avoids it, a kink hides no error.
        assert!(is_evidence_against(judged(kinked(1e-4), 2.0 + 1e-4)));
    }

    #[test]
    fn a_jump_is_no_evidence() {
        for at in [0.0, 1e-6, 3e-4, -3e-4] {
            let verdict = judged(|w| 2.0 * w + if w > at { 1.0 } else { 0.0 }, 2.0);
            assert!(!is_evidence_against(verdict), "jump at {at}: {verdict:?}");
        }
    }

    #[test]
    fn a_step_that_is_too_small_for_the_rounding_is_not_taken() {
        let claim = Claim { value: 2.0, center: 1.0, allowed: ALLOWED, rounding: 1e-9 };
        let f = kinked(1e-4);
        let verdict = claim.judge(&STEPS, |h| {
            assert!(h > 1e-4, "{h}");
            Ok::<_, Infallible>(Sides { h, plus: f(h), minus: f(-h) })
        });
        assert_eq!(verdict, Ok(Verdict::Kink));
    }
}
