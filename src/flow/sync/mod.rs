//! The sync compares a file with a state: what is done with each record is planned as a whole, then only what differs is sent.
//!
//! [`prepare`] plans or finds an unfinished run, [`SyncPlan::commit`] makes the plan last, [`Ready::run`] carries it out. `planning` reads
//! and decides, `planned_records` hands the records to the import, and `missing`
//! handles the accounts that the file does not contain. `flow::import` and `flow::calls` send the requests.

mod case_twins;
mod digests;
mod execution;
mod lookalikes;
mod missing_jobs;
mod missing_rules;
mod observer;
mod plan;
mod plan_draft;
mod planned_records;
mod planning;
mod record_digest;
mod scan;
mod setup;
mod tag_comparer;

pub use execution::{Dependencies, Ready, SyncReport};
pub use lookalikes::{Lookalikes, compare};
pub use missing_jobs::{MissingCounts, MissingError, MissingJobs, missing_counts, write_missing};
pub use missing_rules::{MissingPolicy, MissingRules, MissingTrust};
pub use observer::{MissingProgress, MissingWait, Observer, SyncError, SyncProgress};
pub use plan::SyncPlan;
pub use plan_draft::{PlanDraft, PlannedRequests};
pub use planned_records::{FeedError, FeedPlan, PlannedRecords, SyncOutcomeSink};
pub use planning::{PlanError, Policy, Scratch, Step, build_plan};
pub use scan::{MalformedRecords, Scan, scan};
pub use setup::{Intent, Locks, Prepared, Setup, SharedObserver, SyncInput, UnfinishedRun, prepare};
