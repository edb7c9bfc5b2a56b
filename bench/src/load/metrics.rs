//! What a coordinator says of itself at `/metrics`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// The numbers of one coordinator, asked for with a client's certificate.
pub fn fetch(address: &str, ca_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> anyhow::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem)?)?;
    let certificates = vec![CertificateDer::from_pem_slice(cert_pem)?];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, PrivateKeyDer::from_pem_slice(key_pem)?)?;
    let stream = TcpStream::connect(address).context("no connection to the metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1")?)?;
    let mut tls = StreamOwned::new(connection, stream);
    write!(tls, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer) {
        // The server closes without a TLS goodbye.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => {}
    }
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.contains("200 OK"), "no metrics: {head}");
    Ok(body.to_owned())
}

/// The value of a line that begins with this name.
pub fn value(text: &str, name: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("no metric `{name}`"))
}
