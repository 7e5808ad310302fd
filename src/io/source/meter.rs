//! How much of an input was read, and what it was.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use xxhash_rust::xxh3::Xxh3;

/// Counts and hashes what a [`Metered`] reads, for whoever holds a clone of it.
#[derive(Clone, Default)]
pub struct Meter(Rc<RefCell<(u64, Xxh3)>>);

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meter").field(&self.bytes()).finish()
    }
}

impl Meter {
    /// Bytes that were read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.borrow().0
    }

    /// As [`Self::bytes`], with the hash of them (XXH3).
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        let read = self.0.borrow();
        (read.0, read.1.digest())
    }

    fn pass(&self, bytes: &[u8]) {
        let mut read = self.0.borrow_mut();
        read.0 += bytes.len() as u64;
        read.1.update(bytes);
    }
}

/// A reader under a meter.
#[derive(Debug)]
pub struct Metered<R> {
    input: R,
    meter: Meter,
}

impl<R> Metered<R> {
    pub fn new(input: R, meter: &Meter) -> Self {
        Self { input, meter: meter.clone() }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.meter.pass(&buffer[..bytes]);
        Ok(bytes)
    }
}
