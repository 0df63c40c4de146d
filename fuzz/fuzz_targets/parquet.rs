#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peristyle_fuzz::parquet(bytes));
