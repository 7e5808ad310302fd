//! The REST API of Tencent Chat as this tool uses it.

pub mod wire;
