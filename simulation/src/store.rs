//! S3, as far as outputs need it: uploads that become objects when they are completed.

use std::collections::BTreeMap;

use worker_core::Key;

/// All objects and unfinished uploads.
#[derive(Debug, Default)]
pub(crate) struct Store {
    uploads: BTreeMap<String, Key>,
    objects: BTreeMap<String, Key>,
    last_upload: u64,
}

impl Store {
    /// Uploads what an attempt wrote, without completing it.
    pub(crate) fn upload(&mut self, attempt: Key) -> String {
        self.last_upload += 1;
        let id = format!("upload-{}", self.last_upload);
        self.uploads.insert(id.clone(), attempt);
        id
    }

    /// Makes an upload the object of that name. Doing it again is fine as long as the object is still that one.
    pub(crate) fn complete(&mut self, key: &str, upload: &str, attempt: Key) -> bool {
        match self.uploads.remove(upload) {
            Some(content) => {
                self.objects.insert(key.to_owned(), content);
                true
            }
            None => self.objects.get(key) == Some(&attempt),
        }
    }

    /// Which attempt wrote the object of that name.
    pub(crate) fn object(&self, key: &str) -> Option<Key> {
        self.objects.get(key).copied()
    }
}
