//! Where the store of a quota is, and what is shared there.

use std::fmt;
use std::num::NonZeroU32;

use secrecy::SecretString;

use super::IfLost;
use crate::domain::command::PerCommand;

/// What a process needs to take part in a quota.
#[derive(Debug, Clone)]
pub struct QuotaSettings {
    pub store: StoreAddress,
    /// All processes with the same key share the limits. Each API has a hash of its own, `KEY:API`.
    pub key: String,
    /// Requests per second of all processes together.
    pub limits: PerCommand<NonZeroU32>,
    pub if_lost: IfLost,
}

/// How the store is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

/// The server that keeps the quota.
#[derive(Debug, Clone)]
pub struct StoreAddress {
    pub transport: Transport,
    pub host: String,
    pub port: u16,
    pub database: i64,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// Certificates (PEM) that are trusted besides those of Mozilla's list; without any, the machine's are.
    pub ca_pem: Option<Vec<u8>>,
}

/// Without name and password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Plain => "redis",
            Transport::Tls => "rediss",
        };
        write!(f, "{scheme}://{}:{}/{}", self.host, self.port, self.database)
    }
}
