//! Manifests, too long for an entry of the log, as objects of the grid's own.

use prost::Message;
use proto::v1;

use super::{Stage, StageFailure, object::ObjectUrl};

/// Longest manifest that travels inline, encoded bytes.
const MAX_INLINE: usize = 4 << 10;

impl Stage {
    /// The manifest itself if it is short, else its hash; then it is stored under that.
    pub(super) async fn store_manifest(
        &self,
        manifest: v1::Manifest,
        grid_prefix: &str,
    ) -> Result<v1::Manifest, StageFailure> {
        if manifest.encoded_len() <= MAX_INLINE {
            return Ok(v1::Manifest { entry_count: manifest.entries.len() as u32, ..manifest });
        }
        let encoded = manifest.encode_to_vec();
        let hash = blake3::hash(&encoded);
        self.put_object(&format!("{grid_prefix}manifests/{}", hash.to_hex()), encoded.into()).await?;
        Ok(v1::Manifest {
            entries: Vec::new(),
            hash: hash.as_bytes().to_vec().into(),
            entry_count: manifest.entries.len() as u32,
        })
    }

    /// The entries of a manifest, wherever they are.
    pub(super) async fn load_manifest(
        &self,
        manifest: &v1::Manifest,
        grid_prefix: &str,
    ) -> Result<Vec<v1::ManifestEntry>, StageFailure> {
        if manifest.hash.is_empty() {
            return Ok(manifest.entries.clone());
        }
        let hash = <[u8; 32]>::try_from(&manifest.hash[..])
            .map_err(|_| StageFailure::permanent("manifest", "its hash is not one of BLAKE3"))?;
        let hash = blake3::Hash::from_bytes(hash);
        let url = format!("{grid_prefix}manifests/{}", hash.to_hex());
        let ObjectUrl { bucket, key } = ObjectUrl::parse(&url)?;
        let output = self.client().get_object().bucket(bucket).key(key).send().await;
        let output = output.map_err(|error| StageFailure::of_request(&url, &error))?;
        let body = output.body.collect().await.map_err(|error| StageFailure::transient(&url, error))?.into_bytes();
        if blake3::hash(&body) != hash {
            return Err(StageFailure::transient(&url, "its content is not what its name says"));
        }
        let stored = v1::Manifest::decode(body).map_err(|error| StageFailure::permanent(&url, error))?;
        Ok(stored.entries)
    }
}
