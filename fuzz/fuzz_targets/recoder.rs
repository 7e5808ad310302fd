//! The text of a file in any encoding, compressed or not, whatever the bytes.

#![no_main]

#[expect(dead_code, reason = "each target makes one of the claims")]
#[path = "../../tests/it/fuzz/claims.rs"]
mod claims;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| claims::of_the_recoder(bytes));
