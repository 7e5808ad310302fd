//! Unpacks gzip and zstd, whatever number of members or frames they consist of.

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::{Compression, SourceError};

/// Reads what is packed in `R`.
pub(super) enum Unpacked<R: BufRead> {
    /// Between two members there is none, nor behind the last one.
    Gzip {
        member: Option<Box<GzDecoder<R>>>,
        between: Option<R>,
    },
    Zstd(Box<zstd::Decoder<'static, R>>),
    Plain(R),
}

impl<R: BufRead> Unpacked<R> {
    pub(super) fn new(packed: R, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Unpacked::Plain(packed),
            Compression::Gzip => Unpacked::Gzip { member: Some(Box::new(GzDecoder::new(packed))), between: None },
            Compression::Zstd => Unpacked::Zstd(Box::new(zstd::Decoder::with_buffer(packed)?)),
        })
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Plain(plain) => plain.read(buffer),
            Unpacked::Zstd(zstd) => zstd.read(buffer).map_err(|error| what_is_wrong(error, Compression::Zstd)),
            Unpacked::Gzip { member, between } => loop {
                if let Some(open) = member {
                    let read = open.read(buffer).map_err(|error| what_is_wrong(error, Compression::Gzip))?;
                    if read > 0 || buffer.is_empty() {
                        return Ok(read);
                    }
                    *between = member.take().map(|ended| ended.into_inner());
                }
                let Some(packed) = between else { return Ok(0) };
                if !another_member_follows(packed)? {
                    return Ok(0);
                }
                *member = between.take().map(|packed| Box::new(GzDecoder::new(packed)));
            },
        }
    }
}

/// How long what is packed here is at least, where its first part says so: gzip doesn't at its start.
pub(super) fn unpacked_bytes(head: &[u8], compression: Compression) -> Option<u64> {
    match compression {
        Compression::None | Compression::Gzip => None,
        Compression::Zstd => zstd::zstd_safe::get_frame_content_size(head).ok().flatten(),
    }
}

/// Whether another member begins here. Zeros at the end, as tapes have them, are no data; anything else is not gzip.
fn another_member_follows(packed: &mut impl BufRead) -> io::Result<bool> {
    let mut has_zeros = false;
    loop {
        let ahead = packed.fill_buf()?;
        match ahead {
            [] => return Ok(false),
            [0x1f, ..] if !has_zeros => return Ok(true),
            [0, ..] => {
                has_zeros = true;
                let zeros = ahead.iter().take_while(|byte| **byte == 0).count();
                packed.consume(zeros);
            }
            _ => return Err(SourceError::Trailing(Compression::Gzip).into()),
        }
    }
}

/// What a decoder's error says of the data; the system's errors stay what they are.
fn what_is_wrong(error: io::Error, compression: Compression) -> io::Error {
    let is_the_systems = error.raw_os_error().is_some() || SourceError::of(&error).is_some() || error.kind() == ErrorKind::Interrupted;
    if is_the_systems {
        return error;
    }
    // The zstd library tells by its text alone.
    if error.to_string().contains("too much memory") {
        return SourceError::Window.into();
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => SourceError::CutOff(compression).into(),
        _ => SourceError::Damaged(compression).into(),
    }
}
