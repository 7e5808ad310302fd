//! The sync compares a file with a state: what is done with each record is planned as a whole, then only what differs is sent.
//!
//! `planning` reads and decides, `planned_records` hands the records to the import, `send_outcomes` reads the results back for the state,
//! and `missing` handles the accounts that the file does not contain. `flow::import` and `flow::calls` send the requests.

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
