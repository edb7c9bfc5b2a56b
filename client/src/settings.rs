//! How to reach a grid, and as whom.

use std::time::Duration;

/// How long a call is tried, unless its caller says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the coordinators are, and the certificate to show them.
#[derive(Clone)]
pub struct Settings {
    /// URLs of coordinators, `https://host:port`; any of them will do. At least one.
    pub endpoints: Vec<String>,
    /// The grid's certificate authority, PEM.
    pub ca_pem: Vec<u8>,
    /// The caller's certificate, PEM; its common name is the owner of the jobs it submits.
    pub cert_pem: Vec<u8>,
    /// The private key to it, PEM.
    pub key_pem: Vec<u8>,
    /// How long one call is tried, retries included; [`DEFAULT_TIMEOUT`] by default.
    pub timeout: Duration,
}

impl Settings {
    /// Settings with the default timeout.
    pub fn new(endpoints: Vec<String>, ca_pem: Vec<u8>, cert_pem: Vec<u8>, key_pem: Vec<u8>) -> Self {
        Self { endpoints, ca_pem, cert_pem, key_pem, timeout: DEFAULT_TIMEOUT }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of every log.
        f.debug_struct("Settings").field("endpoints", &self.endpoints).field("timeout", &self.timeout).finish()
    }
}
