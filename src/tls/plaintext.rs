//! Plaintext as it is opened: a buffer that is never cleared with zeros, only counted.

/// Bytes that were opened, behind each other.
#[derive(Default)]
pub struct Plaintext {
    /// Longer than what is kept: what lies behind is left from before, or not authenticated.
    bytes: Vec<u8>,
    kept: usize,
}

impl Plaintext {
    /// A buffer that need not grow up to this many bytes.
    pub fn with_room(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], kept: 0 }
    }

    /// What is kept.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.kept]
    }

    /// Forgets what is kept.
    pub fn clear(&mut self) {
        self.kept = 0;
    }

    /// Keeps these bytes, too.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.keep(bytes.len());
    }

    /// What is kept, as a box of its own.
    pub fn into_boxed_slice(mut self) -> Box<[u8]> {
        self.bytes.truncate(self.kept);
        self.bytes.into_boxed_slice()
    }

    /// Room for so many bytes behind what is kept.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.kept + bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.kept..end]
    }

    /// Keeps the first bytes of the room.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.kept += bytes;
    }
}
