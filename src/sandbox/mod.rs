//! stub
pub struct Sandbox;
pub struct Settings {
    pub limit_per_s: Option<std::num::NonZeroU32>,
    pub key: secrecy::SecretString,
    pub sdkappid: u64,
    pub identifier: String,
}
impl Settings {
    pub fn ephemeral() -> Self {
        todo!()
    }
}
impl Sandbox {
    pub fn start(_: Settings) -> std::io::Result<Self> {
        todo!()
    }
    pub fn endpoint(&self) -> String {
        todo!()
    }
}
