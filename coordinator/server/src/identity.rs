//! Who is at the other end of a connection: what its certificate says.

use proto::internal::Caller;
use proto::v1::Role;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// The organization of every certificate of the grid.
pub const ORGANIZATION: &str = "millgrid";

/// A role and a name, from a certificate that the grid's authority signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// From its organizational unit.
    pub role: Role,
    /// Its common name: owner, worker or member.
    pub name: String,
}

impl Identity {
    /// As it is sent to the leader.
    pub fn caller(&self) -> Caller {
        Caller { role: self.role as i32, name: self.name.clone() }
    }
}

/// Why a certificate, though signed, names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// The connection has none.
    #[error("no client certificate")]
    None,
    /// Not X.509.
    #[error("the certificate can't be read")]
    Malformed,
    /// Another organization.
    #[error("the certificate's organization isn't `{ORGANIZATION}`")]
    Organization,
    /// Another unit.
    #[error("the certificate's organizational unit is none of `coordinator`, `worker`, `client`")]
    Role,
    /// No name, or one that can't be used.
    #[error("the certificate's common name isn't 1 to 128 printable characters")]
    Name,
}

/// Reads the identity that a verified certificate gives.
pub fn identify(certificate: Option<&CertificateDer<'_>>) -> Result<Identity, Unidentified> {
    let certificate = certificate.ok_or(Unidentified::None)?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Unidentified::Malformed)?;
    let subject = parsed.subject();
    if only(subject, X509Name::iter_organization) != Some(ORGANIZATION) {
        return Err(Unidentified::Organization);
    }
    let role = match only(subject, X509Name::iter_organizational_unit) {
        Some("coordinator") => Role::Coordinator,
        Some("worker") => Role::Worker,
        Some("client") => Role::Client,
        _ => return Err(Unidentified::Role),
    };
    let name = only(subject, X509Name::iter_common_name).ok_or(Unidentified::Name)?;
    if !(1..=128).contains(&name.len()) || name.chars().any(char::is_control) {
        return Err(Unidentified::Name);
    }
    Ok(Identity { role, name: name.to_owned() })
}

/// The value of an attribute that stands exactly once: two would be two identities.
fn only<'a, I>(subject: &'a X509Name<'a>, attributes: impl Fn(&'a X509Name<'a>) -> I) -> Option<&'a str>
where
    I: Iterator<Item = &'a x509_parser::prelude::AttributeTypeAndValue<'a>>,
{
    let mut values = attributes(subject);
    let value = values.next()?.as_str().ok()?;
    values.next().is_none().then_some(value)
}
