//! Texts encoded and compressed as people have them.

use std::io::Write;

use encoding_rs::Encoding;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A text in an encoding; it must have all its characters.
pub(crate) fn encoded(text: &str, label: &str) -> Vec<u8> {
    match label {
        "utf-16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "utf-16be" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        _ => {
            let (bytes, _, had_errors) = Encoding::for_label(label.as_bytes()).unwrap().encode(text);
            assert!(!had_errors, "{label} can't hold {text:?}");
            bytes.into_owned()
        }
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
