//! `peristyle devices`.

/// Prints what this machine has.
pub(super) fn run() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    super::print(&format!("cpu: {cores} cores, {} vectors\n", vectors()));
}

fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return "AVX2";
        }
    }
    "baseline"
}
