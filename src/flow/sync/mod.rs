//! The sync: a file against a state. What is to become of each record is planned as a whole, then only what differs is sent.
//!
//! `planning` reads and decides, `feed` hands what is to be sent to the import, `settling` brings what came of it back to the state,
//! `absent` deals with the accounts that the file lacks. Who may send, and how, is the import's and the calls' business.

mod lookalikes;
mod missing;
mod planned_records;
mod planning;
mod record_digest;
mod send_outcomes;

pub use lookalikes::{Lookalikes, compare};
pub use missing::{MissingCounts as AbsentTally, MissingError, MissingRules, MissingWorkload, absent_tally, write_missing};
pub use planned_records::{FeedError, FeedPlan, PlannedRecords, SyncOutcomeSink};
pub use planning::{MalformedRecords, MissingPolicy, MissingTrust, PlanError, Policy, Scan, Scratch, Step, SyncPlan, build_plan, survey};
pub use send_outcomes::{ImportOutcomes, SendOutcomes, import_settled, milliseconds, settlements};
