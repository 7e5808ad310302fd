//! The sync: a file against a state. What is to become of each record is planned as a whole, then only what differs is sent.
//!
//! `planning` reads and decides, `feed` hands what is to be sent to the import, `settling` brings what came of it back to the state,
//! `absent` deals with the accounts that the file lacks. Who may send, and how, is the import's and the calls' business.

mod missing;
mod planned_records;
mod lookalikes;
mod planning;
mod send_outcomes;
mod record_digest;

pub use missing::{MissingWorkload, MissingError, MissingRules, MissingCounts as AbsentTally, absent_tally, write_missing};
pub use planned_records::{PlannedRecords, FeedError, FeedPlan, SyncOutcomeSink};
pub use lookalikes::{Lookalikes, compare};
pub use planning::{MissingPolicy, SyncPlan, MalformedRecords, PlanError, Policy, Step, Scratch, Scan, MissingTrust, build_plan, survey};
pub use send_outcomes::{ImportOutcomes, SendOutcomes, import_settled, milliseconds, settlements};
