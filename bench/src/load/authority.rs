//! Certificates of simulated workers, from the authority that `millgrid dev` has made for its grid.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The authority of one grid. What it issues says the same as a certificate of `millgrid cluster issue-cert`; ten
/// thousand calls of that command would take minutes.
pub struct Authority {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// All simulated workers have one key: a name is what tells them apart.
    key: KeyPair,
}

impl Authority {
    /// Reads `ca.pem` and `ca.key` in this folder.
    pub fn read(folder: &Path) -> anyhow::Result<Arc<Self>> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| format!("can't read {name}"));
        let ca_pem = read("ca.pem")?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&read("ca.key")?)?)?;
        Ok(Arc::new(Self { ca_pem, issuer, key: KeyPair::generate()? }))
    }

    /// TLS as the worker of this name.
    pub fn worker(&self, name: &str) -> anyhow::Result<ClientTlsConfig> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "millgrid");
        subject.push(DnType::OrganizationalUnitName, "worker");
        subject.push(DnType::CommonName, name);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        Ok(self.tls(&certificate.pem(), &self.key.serialize_pem()))
    }

    /// TLS as the holder of this certificate and key.
    pub fn tls(&self, cert_pem: &str, key_pem: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .identity(Identity::from_pem(cert_pem, key_pem))
    }
}
