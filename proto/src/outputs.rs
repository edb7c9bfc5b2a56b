//! Outputs whose manifest is too long for the log, read back from where it is stored.

use prost::{DecodeError, Message};

use crate::v1::{Manifest, OutputObject, Published, StoredManifest};

/// The objects that a stored manifest tells of. Whoever calls has compared `manifest` and `etags` with their hashes;
/// without `etags` the objects are not pinned to a version.
pub fn objects(
    stored: &StoredManifest,
    manifest: &[u8],
    etags: Option<&[u8]>,
) -> Result<Vec<OutputObject>, DecodeError> {
    let manifest = Manifest::decode(manifest)?;
    let mut etags = etags.map(Published::decode).transpose()?.unwrap_or_default().etags.into_iter();
    let object = |entry: crate::v1::ManifestEntry| OutputObject {
        index: stored.index,
        attempt: stored.attempt,
        path: entry.path,
        url: format!("s3://{}/{}", entry.bucket, entry.key),
        size: entry.size,
        etag: etags.next().unwrap_or_default(),
    };
    Ok(manifest.entries.into_iter().map(object).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::v1::ManifestEntry;

    #[test]
    fn each_object_has_the_etag_at_its_place() {
        let entry = |path: &str| ManifestEntry {
            bucket: "b".into(),
            key: format!("k/{path}"),
            path: path.into(),
            size: 3,
            ..ManifestEntry::default()
        };
        let manifest = Manifest { entries: vec![entry("x"), entry("y")], ..Manifest::default() }.encode_to_vec();
        let etags = Published { etags: vec!["1".into(), "2".into()] }.encode_to_vec();
        let stored = StoredManifest { index: 7, attempt: 2, ..StoredManifest::default() };
        let found = objects(&stored, &manifest, Some(&etags)).unwrap();
        let of = |object: &OutputObject| (object.index, object.url.clone(), object.etag.clone());
        assert_eq!(of(&found[1]), (7, "s3://b/k/y".to_owned(), "2".to_owned()));
        assert_eq!(objects(&stored, &manifest, None).unwrap()[0].etag, "");
        assert!(objects(&stored, b"\xff", None).is_err());
    }
}
