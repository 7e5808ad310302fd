//! The settings of an import whose clock is paused.

use std::num::NonZeroU32;
use std::time::Duration;

use chatlift::domain::account::UserId;
use chatlift::domain::command::PerCommand;
use chatlift::domain::verdict::SuccessSeen;
use chatlift::flow::dispatch::{DispatchSettings, Known, SchedulerLimits};
use chatlift::flow::import::{ImportScope, ImportSettings, Lane, WindowLimits};
use chatlift::io::gate::{self, Rate};

/// What the program itself uses for single requests, with this rate for each API.
pub(crate) fn import_settings(lane: Lane, per_s: u32) -> ImportSettings {
    ImportSettings {
        dispatch: DispatchSettings {
            rates: PerCommand::new(|_| Rate::PerSecond(NonZeroU32::new(per_s).unwrap())),
            gates: gate::GateSettings::default(),
            limits: SchedulerLimits { max_attempts: 5, in_flight: 256 },
            known: Known { identifier: UserId::parse(b"administrator").unwrap(), seen: SuccessSeen::NotYet },
            max_outage: Duration::from_secs(6 * 3_600),
            progress_every: Duration::from_millis(250),
        },
        lane,
        scope: ImportScope::Everything,
        window: WindowLimits { records: 65_536, bytes: 24 << 20 },
        limit: None,
        rows_done: 0,
        commit_every: Duration::from_secs(1),
        commit_rows: 1_000,
    }
}
