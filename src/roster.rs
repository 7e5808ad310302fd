//! stub
use crate::account::{Account, Invalid};
use crate::outcome::Mark;
/// r
#[derive(Debug, Clone)]
pub struct Record {
    pub row: u64,
    pub line: u64,
    pub end: Mark,
    pub user_id: Box<[u8]>,
    pub account: Result<Account, Invalid>,
    pub fields: csv::ByteRecord,
}
