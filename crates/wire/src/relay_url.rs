//! Where a relay listens.
/// Relay address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}
