//! Checksums of bodies: computed while they are written, compared with what the caller said.

use base64::{Engine, engine::general_purpose::STANDARD};
use s3s::{
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256},
    dto,
};
use serde::{Deserialize, Serialize};

/// Checksums in base64, as S3 spells them; an algorithm that wasn't used is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checksums {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Checksums {
    /// Each algorithm's name and value, in one order everywhere.
    pub fn each(&self) -> [(&'static str, &Option<String>); 5] {
        [
            ("CRC32", &self.crc32),
            ("CRC32C", &self.crc32c),
            ("CRC64NVME", &self.crc64nvme),
            ("SHA1", &self.sha1),
            ("SHA256", &self.sha256),
        ]
    }

    /// The place of an algorithm's value, by its name in the API.
    pub fn slot(&mut self, algorithm: &str) -> Option<&mut Option<String>> {
        match algorithm {
            "CRC32" => Some(&mut self.crc32),
            "CRC32C" => Some(&mut self.crc32c),
            "CRC64NVME" => Some(&mut self.crc64nvme),
            "SHA1" => Some(&mut self.sha1),
            "SHA256" => Some(&mut self.sha256),
            _ => None,
        }
    }

    /// The first algorithm for which `expected` has another value than these.
    pub fn mismatch(&self, expected: &Checksums) -> Option<&'static str> {
        let pairs = self.each().into_iter().zip(expected.each());
        pairs.filter(|((_, computed), (_, said))| said.is_some() && computed != said).map(|((name, _), _)| name).next()
    }

    pub fn is_empty(&self) -> bool {
        self.each().iter().all(|(_, value)| value.is_none())
    }
}

impl From<dto::Checksum> for Checksums {
    fn from(sums: dto::Checksum) -> Self {
        Self {
            crc32: sums.checksum_crc32,
            crc32c: sums.checksum_crc32c,
            crc64nvme: sums.checksum_crc64nvme,
            sha1: sums.checksum_sha1,
            sha256: sums.checksum_sha256,
        }
    }
}

/// Computes the MD5 and the wanted checksums of a body in one pass.
pub struct Digester {
    md5: Md5,
    checksums: ChecksumHasher,
}

/// What a body was.
pub struct Digests {
    pub md5: [u8; 16],
    pub checksums: Checksums,
}

impl Digester {
    /// `wanted` says whether an algorithm, by its name in the API, is to be computed.
    pub fn new(wanted: impl Fn(&str) -> bool) -> Self {
        let checksums = ChecksumHasher {
            crc32: wanted("CRC32").then(Crc32::new),
            crc32c: wanted("CRC32C").then(Crc32c::new),
            crc64nvme: wanted("CRC64NVME").then(Crc64Nvme::new),
            sha1: wanted("SHA1").then(Sha1::new),
            sha256: wanted("SHA256").then(Sha256::new),
        };
        Self { md5: Md5::new(), checksums }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.checksums.update(bytes);
    }

    pub fn finish(self) -> Digests {
        Digests { md5: self.md5.finalize(), checksums: self.checksums.finalize().into() }
    }
}

/// The checksum of a multipart object by an algorithm that can't be joined from those of its parts: that of
/// their digests, one after the other, and the number of parts. `None` when a part has none.
pub fn composite(algorithm: &str, parts: &[&Checksums]) -> Option<String> {
    let mut joined = Vec::new();
    for part in parts {
        let (_, value) = part.each().into_iter().find(|(name, _)| *name == algorithm)?;
        joined.extend(STANDARD.decode(value.as_ref()?).ok()?);
    }
    let mut digester = Digester::new(|name| name == algorithm);
    digester.update(&joined);
    let mut sums = digester.finish().checksums;
    let sum = sums.slot(algorithm)?.take()?;
    Some(format!("{sum}-{}", parts.len()))
}

pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::checksum(bytes)
}

/// The first half of a SHA-256, in hexadecimal: a file name for any text.
pub fn name_of(text: &str) -> String {
    hex(&Sha256::checksum(text.as_bytes())[..16])
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes behind `hex`, if it was that.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}
