//! Certificates of both ends: nothing is served or dialled without them.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TonicIdentity};

use crate::{
    config::{Config, Invalid},
    identity::{Identity, identify},
};
use proto::v1::Role;

/// What this process shows to others and how it judges theirs. Made once, at start.
pub struct Tls {
    /// For gRPC listeners.
    pub grpc: Arc<ServerConfig>,
    /// For HTTP.
    pub http: Arc<ServerConfig>,
    /// For dialling other members.
    pub client: ClientTlsConfig,
}

/// Reads the files that `config` names and makes sure that they are this member's.
pub fn load(config: &Config) -> Result<Tls, Invalid> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca", &config.ca)? {
        roots.add(authority).map_err(|error| unusable("ca", &config.ca, &error))?;
    }
    let chain = certificates("cert", &config.cert)?;
    own(config, &chain)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| unusable("key", &config.key, &error))?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable("ca", &config.ca, &error))?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("cert", &config.cert, &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable("key", &config.key, &error))?;
    let mut grpc = server.clone();
    grpc.alpn_protocols = vec![b"h2".to_vec()];
    let mut http = server;
    http.alpn_protocols = vec![b"http/1.1".to_vec()];

    let client = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca", &config.ca)?))
        .identity(TonicIdentity::from_pem(read("cert", &config.cert)?, read("key", &config.key)?));
    Ok(Tls { grpc: Arc::new(grpc), http: Arc::new(http), client })
}

fn own(config: &Config, chain: &[CertificateDer<'static>]) -> Result<(), Invalid> {
    let identity = identify(chain.first()).map_err(|error| unusable("cert", &config.cert, &error))?;
    let expected = Identity { role: Role::Coordinator, name: config.name.clone() };
    if identity == expected {
        return Ok(());
    }
    Err(Invalid::Value {
        field: "cert",
        problem: format!(
            "{} is of {} `{}`, not of the coordinator `{}`",
            config.cert.display(),
            identity.role.as_str_name(),
            identity.name,
            config.name
        ),
        hint: "issue one with `millgrid cluster issue-cert`",
    })
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let certificates = read.map_err(|error| unusable(field, path, &error))?;
    if certificates.is_empty() { Err(unusable(field, path, &"no certificate in it")) } else { Ok(certificates) }
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, Invalid> {
    std::fs::read(path).map_err(|error| unusable(field, path, &error))
}

fn unusable(field: &'static str, path: &Path, why: &dyn std::fmt::Display) -> Invalid {
    Invalid::Value {
        field,
        problem: format!("{} can't be used: {why}", path.display()),
        hint: "give the path of a readable PEM file",
    }
}
