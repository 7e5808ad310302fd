//! Text of another encoding as UTF-8.

use std::io::{self, BufRead, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding};

/// Bytes that are decoded at once. Chosen: what the buffers of the system calls hold.
const OUT_BYTES: usize = 128 * 1024;
/// Bytes of the input that are remembered: a malformed sequence may begin in what was read before. Source: `DecoderResult::Malformed` of
/// encoding_rs, whose two numbers add up to 6 at most.
const REMEMBERED: usize = 6;
/// Stands for bytes that can't be kept as they were, for they would be read as UTF-8. It is never a part of UTF-8.
const UNDECODABLE: u8 = 0xff;

/// Decodes what it reads. What can't be decoded stays undecodable: its bytes are handed on as they were, but where they would then mean
/// something in UTF-8.
pub(super) struct Recoder<R> {
    input: R,
    decoder: Decoder,
    /// The last bytes of the input that were decoded.
    before: Remembered,
    out: Box<[u8]>,
    /// What of it is decoded and not handed out yet.
    from: usize,
    to: usize,
    /// The byte in front of `out`.
    last: u8,
    has_ended: bool,
}

/// The last few bytes.
#[derive(Debug, Default)]
struct Remembered {
    bytes: [u8; REMEMBERED],
}

impl Remembered {
    fn push(&mut self, read: &[u8]) {
        let kept = read.len().min(REMEMBERED);
        self.bytes.copy_within(kept.., 0);
        self.bytes[REMEMBERED - kept..].copy_from_slice(&read[read.len() - kept..]);
    }

    /// A malformed sequence of `len` bytes that ended `after` bytes ago.
    fn malformed(&self, len: u8, after: u8) -> &[u8] {
        let end = REMEMBERED - usize::from(after).min(REMEMBERED);
        &self.bytes[end - usize::from(len).min(end)..end]
    }
}

impl<R: BufRead> Recoder<R> {
    pub(super) fn new(input: R, encoding: &'static Encoding) -> Self {
        let decoder = encoding.new_decoder_without_bom_handling();
        Self { input, decoder, before: Remembered::default(), out: vec![0; OUT_BYTES].into(), from: 0, to: 0, last: 0, has_ended: false }
    }

    /// Decodes until there is something to hand out, or nothing more.
    fn refill(&mut self) -> io::Result<()> {
        self.last = if self.to > 0 { self.out[self.to - 1] } else { self.last };
        (self.from, self.to) = (0, 0);
        while self.to == 0 && !self.has_ended {
            let read = self.input.fill_buf()?;
            let is_last = read.is_empty();
            let room = self.out.len() - REMEMBERED;
            let (result, taken, written) = self.decoder.decode_to_utf8_without_replacement(read, &mut self.out[..room], is_last);
            self.before.push(&read[..taken]);
            self.input.consume(taken);
            self.to = written;
            match result {
                DecoderResult::InputEmpty => self.has_ended = is_last,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(len, after) => self.keep_undecodable(len, after),
            }
        }
        Ok(())
    }

    #[cold]
    fn keep_undecodable(&mut self, len: u8, after: u8) {
        // Text always comes whole, so that a byte in front that leads a sequence is itself undecodable: what follows must not complete it.
        let in_front = if self.to > 0 { self.out[self.to - 1] } else { self.last };
        let mut leads = in_front >= 0xc0;
        for byte in self.before.malformed(len, after) {
            let is_continuation = (0x80..0xc0).contains(byte);
            let kept = if byte.is_ascii() || (is_continuation && leads) { UNDECODABLE } else { *byte };
            leads = kept >= 0xc0;
            self.out[self.to] = kept;
            self.to += 1;
        }
    }
}

impl<R: BufRead> Read for Recoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.from == self.to {
            self.refill()?;
        }
        let bytes = buffer.len().min(self.to - self.from);
        buffer[..bytes].copy_from_slice(&self.out[self.from..self.from + bytes]);
        self.from += bytes;
        Ok(bytes)
    }
}
