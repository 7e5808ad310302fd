//! The sync: a file against a state. What is to become of each record is planned as a whole, then only what differs is sent.
//!
//! `planning` reads and decides, `feed` hands what is to be sent to the import, `settling` brings what came of it back to the state,
//! `absent` deals with the accounts that the file lacks. Who may send, and how, is the import's and the calls' business.

mod absent;
mod feed;
mod lookalikes;
mod planning;
mod settling;
mod slip;

pub use absent::{Absent, AbsentError, Rules, Tally as AbsentTally, absent_tally, write_missing};
pub use feed::{Feed, FeedError, Planned, SyncLedger};
pub use lookalikes::{Lookalikes, compare};
pub use planning::{Absence, Drawn, MalformedRecords, PlanError, Policy, Step, Survey, Surveyed, Trust, draw_up, survey};
pub use settling::{ImportSettled, Settlements, import_settled, milliseconds, settlements};
