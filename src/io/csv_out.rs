//! How CSV files are written: RFC 4180 with line feeds.

use std::io::Write;

/// A writer of records, which may differ in their number of fields.
pub fn writer<W: Write>(delimiter: u8, out: W) -> csv::Writer<W> {
    csv::WriterBuilder::new().delimiter(delimiter).terminator(csv::Terminator::Any(b'\n')).flexible(true).from_writer(out)
}
