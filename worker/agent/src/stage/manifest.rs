//! Manifests, too long for an entry of the log, as objects of the grid's own.

use bytes::Bytes;
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
        let hash = blake3::Hash::from_slice(&manifest.hash)
            .map_err(|_| StageFailure::permanent("manifest", "its hash is not one of BLAKE3"))?;
        let url = format!("{grid_prefix}manifests/{}", hash.to_hex());
        let body = self.get_by_hash(&url, &manifest.hash).await?;
        let stored = v1::Manifest::decode(body).map_err(|error| StageFailure::permanent(&url, error))?;
        Ok(stored.entries)
    }

    /// Stores the ETags of completed objects whose manifest isn't inline: the one word that stands for them.
    pub(super) async fn store_etags(&self, etags: Vec<String>, grid_prefix: &str) -> Result<String, StageFailure> {
        let encoded = v1::Published { etags }.encode_to_vec();
        let hash = blake3::hash(&encoded).to_hex();
        self.put_object(&format!("{grid_prefix}manifests/{hash}"), encoded.into()).await?;
        Ok(hash.to_string())
    }

    /// The objects of another task whose manifest isn't inline, pinned to the versions that were published.
    pub async fn stored_outputs(&self, stored: &v1::StoredManifest) -> Result<Vec<v1::OutputObject>, StageFailure> {
        let manifest = self.get_by_hash(&stored.url, &stored.hash).await?;
        let etags = match stored.etags_url.is_empty() {
            true => None,
            false => Some(self.get_by_hash(&stored.etags_url, &stored.etags_hash).await?),
        };
        proto::outputs::objects(stored, &manifest, etags.as_deref())
            .map_err(|error| StageFailure::permanent(&stored.url, error))
    }

    async fn get_by_hash(&self, url: &str, hash: &[u8]) -> Result<Bytes, StageFailure> {
        let ObjectUrl { bucket, key } = ObjectUrl::parse(url)?;
        let output = self.client().get_object().bucket(bucket).key(key).send().await;
        let output = output.map_err(|error| StageFailure::of_request(url, &error))?;
        let body = output.body.collect().await.map_err(|error| StageFailure::transient(url, error))?.into_bytes();
        if blake3::hash(&body).as_bytes() != hash {
            return Err(StageFailure::transient(url, "its content is not what its hash says"));
        }
        Ok(body)
    }
}
