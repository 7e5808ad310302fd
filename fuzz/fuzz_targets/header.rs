//! What a file begins with, whatever the bytes, and the same with an escape character.

#![no_main]

#[expect(dead_code, reason = "each target makes one of the claims")]
#[path = "../../tests/it/fuzz/claims.rs"]
mod claims;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    claims::of_a_header(bytes);
    claims::of_escapes(bytes);
});
