//! The buffers of a worker. A connection borrows them for one poll and keeps nothing of them, so an
//! idle connection holds no buffer.

use std::cell::RefCell;

use crate::tls::session::{RECORD_WIRE_MAX, sealed_len_max};

/// Bytes asked of a socket at once.
pub const READ_BYTES: usize = 128 * 1024;

/// The buffers of one thread.
pub struct Scratch {
    /// What was read, behind room for the part of a record that was left from before.
    pub input: Box<[u8]>,
    /// Plaintext opened from records.
    pub plain: Vec<u8>,
    /// Records sealed from plaintext.
    pub sealed: Box<[u8]>,
}

thread_local! {
    /// Never borrowed across an await: the closure of [`with`] is synchronous.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; RECORD_WIRE_MAX + READ_BYTES].into_boxed_slice(),
        plain: Vec::with_capacity(RECORD_WIRE_MAX + READ_BYTES),
        sealed: vec![0; sealed_len_max(RECORD_WIRE_MAX + READ_BYTES)].into_boxed_slice(),
    });
}

/// Lends this thread's buffers for one poll.
pub fn with<T>(use_it: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(use_it)
}
