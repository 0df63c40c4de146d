//! An emulated device whose memory is filled and read back, and comparisons with plain f64 computations.

use half::bf16;
use peristyle::gpu::{Const, Driver, EmulatorSettings, Grid, Issue, Mut, Stream, ThreadOrder};
use std::cell::RefCell;

/// One emulated device with its memory.
pub struct Rig {
    driver: Driver,
    stream: Stream,
    allocations: RefCell<Vec<u64>>,
}

impl Rig {
    pub fn new(order: ThreadOrder, threads: usize) -> Rig {
        let driver = Driver::emulated(EmulatorSettings { threads, order }).expect("the tests need a C++ compiler");
        let stream = driver.stream().expect("a stream is created");
        Rig { driver, stream, allocations: RefCell::default() }
    }

    /// Returns the driver and stream of launches.
    pub fn on(&self) -> Issue<'_> {
        Issue { driver: &self.driver, stream: self.stream }
    }

    /// Allocates `n` elements full of NaN.
    pub fn out<T>(&self, n: usize) -> Mut<T> {
        let address = self.driver.allocate(n * size_of::<T>()).expect("tests are small");
        self.allocations.borrow_mut().push(address);
        Mut::at(address)
    }

    /// Copies elements to the device.
    pub fn put<T: Copy>(&self, x: &[T]) -> Mut<T> {
        let to = self.out::<T>(x.len());
        // SAFETY: `to` has room for x.
        unsafe { self.driver.copy_in(to.address(), x.as_ptr().cast(), size_of_val(x), self.stream) }.expect("it fits");
        to
    }

    /// Copies elements to the device for reading only.
    pub fn give<T: Copy>(&self, x: &[T]) -> Const<T> {
        self.put(x).into()
    }

    /// Copies numbers to the device, converted to an element type.
    pub fn element<T: Element>(&self, x: &[f32]) -> Const<T> {
        self.give(&T::all_from(x))
    }

    /// Copies elements from the device and converts them to numbers.
    pub fn numbers<T: Element>(&self, from: Mut<T>, n: usize) -> Vec<f32> {
        T::all_to(&self.get(from, n))
    }

    /// Copies elements from the device.
    pub fn get<T: Copy + Default>(&self, from: impl Into<Const<T>>, n: usize) -> Vec<T> {
        let mut x = vec![T::default(); n];
        let from = from.into().address();
        // SAFETY: x has room.
        unsafe { self.driver.copy_out(x.as_mut_ptr().cast(), from, n * size_of::<T>(), self.stream) }.expect("inside");
        x
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for address in self.allocations.borrow_mut().drain(..) {
            // SAFETY: allocated in `out`; no launch is running.
            unsafe { self.driver.free(address) }.expect("allocated once");
        }
    }
}

/// Runs the same launches with the threads of a block forward, backward and shuffled, on one and two threads of the
/// operating system; returns the outputs, which must have the same bits every time.
pub fn outputs(launches: impl Fn(&Rig) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let first = launches(&Rig::new(ThreadOrder::Forward, 1));
    for (order, threads) in [(ThreadOrder::Reverse, 1), (ThreadOrder::Random(1), 2), (ThreadOrder::Random(2), 1)] {
        let other = launches(&Rig::new(order, threads));
        for (i, (a, b)) in first.iter().zip(&other).enumerate() {
            let differ = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differ, None, "output {i} depends on the order of threads ({order:?})");
        }
    }
    first
}

/// Panics unless got = want within `tolerance` times the largest expected magnitude; NaN never passes.
#[track_caller]
pub fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let scale = want.iter().fold(1e-3, |m: f64, w| m.max(w.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= tolerance * scale, "{what}[{i}] = {g}, expected {w} (scale {scale}, tolerance {tolerance})");
    }
}

/// Returns n values in -1..1 that bf16 represents exactly, from a fixed sequence.
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bf16::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0).to_f32()
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// An element type of activations.
pub trait Element: Copy + Default {
    /// The largest allowed error of a rounded output, as a share of the largest exact one.
    const TOLERANCE: f64;
    fn all_from(x: &[f32]) -> Vec<Self>;
    fn all_to(x: &[Self]) -> Vec<f32>;
}

impl Element for f32 {
    /// Sums of a few hundred terms stay within this bound.
    const TOLERANCE: f64 = 2e-6;
    fn all_from(x: &[f32]) -> Vec<f32> {
        x.to_vec()
    }
    fn all_to(x: &[f32]) -> Vec<f32> {
        x.to_vec()
    }
}

impl Element for bf16 {
    /// Half a unit in the last place is 2^-8 of the value; inputs are exact, outputs are rounded once.
    const TOLERANCE: f64 = 3.95e-3;
    fn all_from(x: &[f32]) -> Vec<bf16> {
        x.iter().map(|&x| bf16::from_f32(x)).collect()
    }
    fn all_to(x: &[bf16]) -> Vec<f32> {
        x.iter().map(|x| x.to_f32()).collect()
    }
}

/// Runs a block once with `$T` = f32 and once with bf16, with the kernels of that type under shorter names.
#[macro_export]
macro_rules! each_type {
    ($T:ident, $($name:ident = $f32:ident | $bf16:ident),+ => $body:block) => {
        {
            type $T = f32;
            use peristyle::gpu::kernels::{$($f32 as $name),+};
            $body
        }
        {
            type $T = half::bf16;
            use peristyle::gpu::kernels::{$($bf16 as $name),+};
            $body
        }
    };
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Returns a grid for an element-wise kernel of 256 threads with 16 bytes each.
pub fn vectors<T>(n: usize) -> Grid {
    Grid::cover(n, 256 * 16 / size_of::<T>())
}
