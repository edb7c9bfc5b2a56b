//! The grid's own certificate authority: one key, and certificates by role.
//!
//! A certificate says who its holder is: O=millgrid, OU=role, CN=name. Coordinators serve and call; workers and
//! clients only call. All keys are ECDSA P-256.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// What every certificate of a grid has as its organization.
const ORGANIZATION: &str = "millgrid";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The authority is valid for ten years.
const AUTHORITY_DAYS: u32 = 3653;
/// A certificate is valid for a year.
const CERTIFICATE_DAYS: u32 = 365;
/// Certificates are valid from a day ago, so that a machine whose clock is behind accepts them.
const BACKDATED: Duration = DAY;
/// Names are common names of certificates, and parts of file names.
const MAX_NAME_BYTES: usize = 64;

/// What the holder of a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Takes part in replication, and serves clients and workers.
    Coordinator,
    /// Runs tasks.
    Worker,
    /// Submits jobs; the common name is the jobs' owner.
    Client,
}

/// Why the authority can't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The text is none of the three roles.
    #[error("`{0}` is no role; there are coordinator, worker and client")]
    Role(String),
    /// The name can't be a common name and a file name.
    #[error(
        "the name `{0}` can't be used; write 1 to 64 letters, digits, `-`, `_` or `.`, beginning with a letter or digit"
    )]
    Name(String),
    /// The host is neither an address nor a DNS name.
    #[error("the host `{0}` is neither an IP address nor a DNS name")]
    Host(String),
    /// Nothing is ever overwritten: a key that is lost is lost.
    #[error("`{0}` exists already; remove it or choose another folder")]
    Exists(PathBuf),
    /// There is no authority in that folder.
    #[error("there is no certificate authority in `{0}`; make one with `millgrid cluster init-ca`")]
    NoAuthority(PathBuf),
    /// The authority's files are not what this program wrote.
    #[error("the certificate authority in `{path}` can't be read: {source}")]
    Authority {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// No certificate could be made.
    #[error("the certificate can't be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system said no.
    #[error("can't {what} `{path}`: {source}")]
    File {
        /// To read or to write.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Problem {
    /// The canonical code, from which exit codes follow.
    pub fn code(&self) -> tonic::Code {
        match self {
            Self::Role(_) | Self::Name(_) | Self::Host(_) => tonic::Code::InvalidArgument,
            Self::Exists(_) => tonic::Code::AlreadyExists,
            Self::NoAuthority(_) => tonic::Code::NotFound,
            Self::Authority { .. } | Self::Certificate(_) | Self::File { .. } => tonic::Code::Unknown,
        }
    }
}

/// Where a certificate and its key were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM, readable by its owner alone.
    pub key: PathBuf,
}

impl Role {
    /// The organizational unit of its certificates.
    pub fn word(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::Client => "client",
        }
    }
}

impl FromStr for Role {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        [Self::Coordinator, Self::Worker, Self::Client]
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or_else(|| Problem::Role(text.to_owned()))
    }
}

/// Makes a certificate authority in `dir`: `ca.pem`, and `ca.key`, which whoever holds it can be anyone with.
///
/// # Errors
///
/// When one of the files exists already: nothing is overwritten.
pub fn init_ca(dir: &Path) -> Result<Files, Problem> {
    let files = files(dir, "ca");
    refuse_existing(&files)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("authority", "millgrid certificate authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_DAYS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write(dir, &files, &certificate.pem(), &key)?;
    Ok(files)
}

/// Issues a certificate of the authority in `ca_dir`: `NAME.pem` and `NAME.key` in `out_dir`. A coordinator's is
/// valid for 127.0.0.1 and localhost besides `hosts`.
///
/// # Errors
///
/// When the name or a host can't be used, there is no authority, or one of the files exists already.
pub fn issue_cert(ca_dir: &Path, role: Role, name: &str, hosts: &[String], out_dir: &Path) -> Result<Files, Problem> {
    check_name(name)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(role.word(), name);
    params.subject_alt_names = alternative_names(role, hosts)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match role {
        Role::Coordinator => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Role::Worker | Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, CERTIFICATE_DAYS);
    let files = files(out_dir, name);
    refuse_existing(&files)?;
    let issuer = authority(ca_dir)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write(out_dir, &files, &certificate.pem(), &key)?;
    Ok(files)
}

fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, Problem> {
    let files = files(dir, "ca");
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Problem::NoAuthority(dir.to_owned()),
            _ => Problem::File { what: "read", path: path.to_owned(), source },
        })
    };
    let (certificate, key) = (read(&files.cert)?, read(&files.key)?);
    let unreadable = |source| Problem::Authority { path: dir.to_owned(), source };
    let key = KeyPair::from_pem(&key).map_err(unreadable)?;
    Issuer::from_ca_cert_pem(&certificate, key).map_err(unreadable)
}

fn subject(unit: &str, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, ORGANIZATION);
    subject.push(DnType::OrganizationalUnitName, unit);
    subject.push(DnType::CommonName, name);
    subject
}

fn alternative_names(role: Role, hosts: &[String]) -> Result<Vec<SanType>, Problem> {
    let own = match role {
        Role::Coordinator => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        Role::Worker | Role::Client => Vec::new(),
    };
    let mut names: Vec<SanType> = Vec::new();
    for host in own.iter().chain(hosts) {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if is_dns_name(host) => {
                SanType::DnsName(host.as_str().try_into().map_err(|_| Problem::Host(host.clone()))?)
            }
            Err(_) => return Err(Problem::Host(host.clone())),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// RFC 1123, with `*` for the leftmost label.
fn is_dns_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn check_name(name: &str) -> Result<(), Problem> {
    let good = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
        // Its files would be those of the authority.
        && name != "ca";
    if good { Ok(()) } else { Err(Problem::Name(name.to_owned())) }
}

fn validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Whole seconds: a certificate's times have no others.
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs());
    params.not_before = now - BACKDATED;
    params.not_after = now + DAY * days;
}

fn files(dir: &Path, name: &str) -> Files {
    Files { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

fn refuse_existing(files: &Files) -> Result<(), Problem> {
    match [&files.cert, &files.key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Problem::Exists(path.clone())),
        None => Ok(()),
    }
}

/// The key first: a certificate without its key is of no use to anyone.
fn write(dir: &Path, files: &Files, certificate: &str, key: &KeyPair) -> Result<(), Problem> {
    let failure = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => Problem::Exists(path),
            _ => Problem::File { what: "write", path, source },
        }
    };
    fs::create_dir_all(dir).map_err(failure(dir))?;
    for (path, text, mode) in [(&files.key, key.serialize_pem(), 0o600), (&files.cert, certificate.to_owned(), 0o644)] {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failure(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
