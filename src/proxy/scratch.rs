//! The buffers of a worker. A connection borrows them for one poll and keeps nothing of them, so an
//! idle connection holds no buffer.

use std::cell::RefCell;

use crate::plan::limits::HANDSHAKE_BYTES_MAX;
use crate::tls::plaintext::Plaintext;
use crate::tls::session::sealed_len_max;

/// Bytes asked of a socket at once.
pub const READ_BYTES: usize = 256 * 1024;

/// What a hop may keep of input that is not whole: a record, or a handshake message in several.
pub const INBOX_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX;
/// Plaintext of one read at most, and so also what is sealed at once.
const PLAIN_BYTES_MAX: usize = INBOX_BYTES_MAX + READ_BYTES;

/// The buffers of one thread.
pub struct Scratch {
    /// What was read, behind room for the part of a record that was left from before.
    pub input: Box<[u8]>,
    /// Plaintext opened from records.
    pub plain: Plaintext,
    /// What the protocol itself has to say: answers to KeyUpdates, alerts.
    pub protocol: Vec<u8>,
    /// Records sealed from plaintext.
    pub sealed: Box<[u8]>,
}

thread_local! {
    /// Never borrowed across an await: the closure of [`with`] is synchronous.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; INBOX_BYTES_MAX + READ_BYTES].into_boxed_slice(),
        plain: Plaintext::with_room(PLAIN_BYTES_MAX),
        protocol: Vec::new(),
        sealed: vec![0; sealed_len_max(PLAIN_BYTES_MAX)].into_boxed_slice(),
    });
}

/// Lends this thread's buffers for one poll.
pub fn with<T>(use_it: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(use_it)
}
