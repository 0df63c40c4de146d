//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
//! <https://doi.org/10.1145/2063384.2063405>).
//!
//! A number is a pure function of (seed, purpose, time, stream, index), so a device can compute the numbers for its
//! window of a tensor, and a resumed run needs no saved state.

use std::convert::Infallible;

/// The purpose of a random number. Numbers for different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomStream {
    /// Initial values of parameters.
    Init = 1,
    /// The order of samples in an epoch.
    Order = 2,
    /// Augmentation of a sample.
    Augment = 3,
    /// Dropout masks.
    Dropout = 4,
    /// Synthetic data.
    Synthetic = 5,
    /// Directions and samples in diagnostics and tests.
    Probe = 6,
    /// The choice of training samples for the validation share.
    Validation = 7,
    /// The choices of stochastic pooling.
    Pool = 8,
    /// The mixing of a sample with another.
    Mix = 9,
    /// Augmentation of that other sample.
    Partner = 10,
    /// Which samples with large losses come once more in an epoch.
    HardExamples = 11,
    /// The choice of training samples with wrong labels, and their classes.
    LabelNoise = 12,
    /// The choice of training samples that are measured.
    Measure = 13,
}

/// The sequence of random numbers of one (seed, purpose, time, stream).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Random {
    key: [u32; 2],
    time: u32,
    stream: u32,
}

impl Random {
    /// Returns a sequence. `time` is a step or an epoch, `stream` a layer or a sample.
    pub fn new(seed: u64, purpose: RandomStream, time: u64, stream: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32 ^ (purpose as u32).wrapping_mul(0x9E37_79B9)];
        Random { key, time: time as u32, stream: stream as u32 }
    }

    /// Returns the sequence of a key, with time and stream 0.
    pub fn with_key(key: [u32; 2]) -> Self {
        Random { key, time: 0, stream: 0 }
    }

    /// Returns the key, for kernels that compute the same words on a GPU.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// Returns the four words at `counter`.
    #[inline(always)]
    pub fn words(&self, counter: u64) -> [u32; 4] {
        philox([counter as u32, (counter >> 32) as u32, self.time, self.stream], self.key)
    }

    /// Returns word `index` of the sequence: word `index % 4` at counter `index / 4`.
    #[inline(always)]
    pub fn word(&self, index: u64) -> u32 {
        self.words(index / 4)[(index % 4) as usize]
    }

    /// Returns a uniform double in [0, 1) with 53 random bits, from words 0 and 1 of counter `index`.
    pub fn uniform(&self, index: u64) -> f64 {
        let [a, b, ..] = self.words(index);
        to_unit(a, b)
    }

    /// Returns a standard normal double, computed by Box-Muller from the four words at counter `index`.
    pub fn normal(&self, index: u64) -> f64 {
        let [a, b, c, d] = self.words(index);
        (-2.0 * (1.0 - to_unit(a, b)).ln()).sqrt() * (std::f64::consts::TAU * to_unit(c, d)).cos()
    }

    /// Returns an integer in 0..n (multiply and shift; the bias is less than n / 2^64).
    pub fn below(&self, index: u64, n: u64) -> u64 {
        let [a, b, ..] = self.words(index);
        let word = u64::from(a) << 32 | u64::from(b);
        ((u128::from(word) * u128::from(n)) >> 64) as u64
    }

    /// Returns the numbers 0..n in a random order (Fisher-Yates from the end, draw i at counter i).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }

    /// Returns the sequence as a generator of the `rand` crate, starting at counter 0.
    pub fn stream(self) -> RandomWords {
        RandomWords { random: self, next: 0 }
    }
}

/// A generator that yields the words of a [`Random`] in order, for code that requires the traits of `rand`.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomWords {
    random: Random,
    next: u64,
}

impl rand::TryRng for RandomWords {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.next += 1;
        Ok(self.random.word(self.next - 1))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let high = u64::from(self.try_next_u32()?);
        Ok(high << 32 | u64::from(self.try_next_u32()?))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

fn to_unit(a: u32, b: u32) -> f64 {
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn draws_are_golden() {
        let r = Random::new(1, RandomStream::Order, 3, 0);
        assert_eq!(r.permutation(10), r.permutation(10));
        let mut sorted = r.permutation(1000);
        assert_ne!(sorted[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &v)| i as u32 == v));
        let mean: f64 = (0..10_000).map(|i| r.normal(i)).sum::<f64>() / 1e4;
        let var: f64 = (0..10_000).map(|i| r.normal(i).powi(2)).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.04 && (var - 1.0).abs() < 0.05, "{mean} {var}");
    }

    #[test]
    fn the_stream_reads_the_same_words() {
        let r = Random::new(7, RandomStream::Probe, 0, 0);
        let mut s = r.stream();
        assert_eq!((s.next_u32(), s.next_u32()), (r.word(0), r.word(1)));
    }
}
