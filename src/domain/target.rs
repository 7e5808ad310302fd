//! The target of an import: endpoint, app and API. Runs to the same target compare equal.

use serde::{Deserialize, Serialize};

/// The endpoint of the mock service in this process, whatever its port.
pub const SANDBOX: &str = "sandbox";

/// The service, app and API into which accounts are imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// URL with port, or `sandbox`.
    pub endpoint: String,
    pub sdkappid: u64,
    /// The name of the API.
    pub api: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.endpoint.as_str() {
            SANDBOX => f.write_str("the sandbox"),
            endpoint => write!(f, "{endpoint} (app {})", self.sdkappid),
        }
    }
}
