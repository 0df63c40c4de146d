//! No step allocates: all the memory that a step needs is in the arena before the first one.
//!
//! Matrix products are counted separately: the `gemm` crate allocates its own packing buffers.

mod common;

use common::{Training, on_mesh};
use peristyle::cpu::inside_gemm;
use peristyle::data::{Destination, Loader, Preparer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static INSIDE_GEMM: AtomicU64 = AtomicU64::new(0);

fn count() {
    let counter = if inside_gemm() { &INSIDE_GEMM } else { &ALLOCATIONS };
    counter.fetch_add(1, Ordering::SeqCst);
}

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract, which is the same for the system's allocator.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the number of allocations that all threads made during `work`: outside matrix products, and inside them.
fn during(work: impl FnOnce()) -> (u64, u64) {
    let before = (ALLOCATIONS.load(Ordering::SeqCst), INSIDE_GEMM.load(Ordering::SeqCst));
    work();
    (ALLOCATIONS.load(Ordering::SeqCst) - before.0, INSIDE_GEMM.load(Ordering::SeqCst) - before.1)
}

const STEPS: usize = 8;

fn steps_allocate_nothing(config: &str, mesh: (usize, usize), more: &[&str]) {
    let mut sets = on_mesh(mesh);
    sets.extend(more.iter().map(|set| set.to_string()));
    let mut training = Training::new(config, &sets);
    // Filling a batch allocates nothing either, except for the order of an epoch.
    training.losses(3);
    let (steps, products) = during(|| {
        for _ in 0..STEPS {
            training.update();
        }
    });
    assert_eq!(steps, 0, "{config} on {mesh:?} {more:?}: allocations in {STEPS} steps; {products} more inside gemm");
    println!("{config} on {mesh:?} {more:?}: {} allocations per step, all inside gemm", products / STEPS as u64);
}

/// A single test, so that no other test allocates at the same time.
#[test]
fn after_the_first_steps_nothing_allocates() {
    let products = during(|| drop(std::hint::black_box(Box::new([0u8; 64]))));
    assert_eq!(products, (1, 0), "allocations are counted");
    for config in ["configs/columns_small.toml", "configs/residual_small.toml"] {
        for mesh in [(1, 1), (2, 2), (4, 1)] {
            steps_allocate_nothing(config, mesh, &[]);
        }
    }
    steps_allocate_nothing("configs/one_weird_trick_small.toml", (2, 2), &[]);
    steps_allocate_nothing("configs/columns_small.toml", (1, 1), &["devices.threads=3"]);
    steps_allocate_nothing("configs/residual_small.toml", (2, 2), &["devices.collectives=\"ring\""]);
    steps_allocate_nothing("configs/residual_small.toml", (1, 1), &["devices.precision=\"f64\""]);
    steps_allocate_nothing("configs/columns_small.toml", (1, 1), &["data.mix=[{ mixup = 0.2 }, { cutmix = 1.0 }]"]);
    prefetching_allocates_no_batch();
}

/// The loader's channels keep a list of waiting threads, which may grow at any time but not without limit; each epoch
/// allocates its order. A batch allocates nothing.
fn prefetching_allocates_no_batch() {
    let training = Training::new("configs/columns_small.toml", &on_mesh((1, 1)));
    let config = &training.job.config;
    let splits = peristyle::data::open(&config.data, config.seed, &config.base).unwrap();
    let epochs = 8;
    let batches = training.batches.plan().batches() * epochs;
    for preparer in [Preparer::Host, Preparer::Device] {
        let to = Destination { preparer, ..Destination::host() };
        let mut loader = Loader::train(&splits, to, peristyle::data::Place::default(), usize::MAX).unwrap();
        let (allocations, _) = during(|| {
            for _ in 0..batches {
                std::hint::black_box(loader.next_batch().unwrap());
            }
        });
        assert!(allocations < 16 + 2 * epochs as u64, "{allocations} allocations for {batches} batches");
    }
}
