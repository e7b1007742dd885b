//! Signatures on certificates that were found to hold, so that the same arithmetic is not done for every
//! connection of the same peer.
//!
//! Whether a key has signed some bytes never changes. What can change (dates, usages, names, revocation, the
//! CAs that are trusted) is not kept: webpki looks at all of it for each connection, and asks the algorithms
//! here for nothing but the arithmetic. The signature by which a peer proves to hold its key is over what
//! only this connection has said, and never comes this way.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{AlgorithmIdentifier, FipsStatus, InvalidSignature, SignatureVerificationAlgorithm};

/// Signatures a thread remembers, 32 bytes each. Only what a CA has really signed is ever among them.
const REMEMBERED_MAX: usize = 1024;

type Digest = [u8; 32];

thread_local! {
    /// Digests of key, bytes and signature of those that hold.
    static HOLDS: RefCell<HashSet<Digest>> = RefCell::default();
}

static REMEMBERING: LazyLock<Vec<Remembering>> =
    LazyLock::new(|| webpki::ALL_VERIFICATION_ALGS.iter().map(|inner| Remembering(*inner)).collect());
static ALGORITHMS: LazyLock<Vec<&'static dyn SignatureVerificationAlgorithm>> = LazyLock::new(|| {
    REMEMBERING.iter().map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm).collect()
});

/// All that webpki knows, for chains and revocation lists.
pub(super) fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    &ALGORITHMS
}

/// An algorithm that remembers what it has verified on this thread.
#[derive(Debug)]
struct Remembering(&'static dyn SignatureVerificationAlgorithm);

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let claim = self.claim(public_key, message, signature);
        if HOLDS.with_borrow(|holds| holds.contains(&claim)) {
            return Ok(());
        }
        self.0.verify_signature(public_key, message, signature)?;
        HOLDS.with_borrow_mut(|holds| {
            // Those in use come back at the price of one verification each.
            if holds.len() >= REMEMBERED_MAX {
                holds.clear();
            }
            holds.insert(claim);
        });
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }

    fn fips_status(&self) -> FipsStatus {
        self.0.fips_status()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

impl Remembering {
    /// All that the verdict depends on, each part with its length, so that no two claims look alike.
    fn claim(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Digest {
        let (key_algorithm, algorithm) = (self.0.public_key_alg_id(), self.0.signature_alg_id());
        let mut context = Context::new(&SHA256);
        for part in [key_algorithm.as_ref(), algorithm.as_ref(), public_key, message, signature] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Takes a signature that repeats the key and the bytes, and counts how often it is asked.
    #[derive(Debug)]
    struct Counting(AtomicUsize, AlgorithmIdentifier);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if signature == [public_key, message].concat() { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            self.1
        }
    }

    fn counting(algorithm: AlgorithmIdentifier) -> (&'static Counting, Remembering) {
        let inner: &'static Counting = Box::leak(Box::new(Counting(AtomicUsize::new(0), algorithm)));
        (inner, Remembering(inner))
    }

    #[test]
    fn what_holds_is_computed_once_and_anything_else_every_time() {
        let (inner, remembering) = counting(alg_id::ECDSA_SHA256);
        let check = |key: &str, message: &str, signature: &str, holds: bool, computed: usize| {
            let before = inner.0.load(Ordering::Relaxed);
            let verdict =
                remembering.verify_signature(key.as_bytes(), message.as_bytes(), signature.as_bytes());
            assert_eq!(verdict.is_ok(), holds, "{key} {message} {signature}");
            assert_eq!(inner.0.load(Ordering::Relaxed) - before, computed, "{key} {message} {signature}");
        };
        check("key", "bytes", "keybytes", true, 1);
        check("key", "bytes", "keybytes", true, 0);
        // The same letters, cut elsewhere, are another claim.
        check("keyb", "ytes", "keybytes", true, 1);
        for _ in 0..2 {
            check("key", "bytes", "forged", false, 1);
            check("other", "bytes", "keybytes", false, 1);
            check("key", "other", "keybytes", false, 1);
        }
        // Nor does one algorithm vouch for another.
        let (other, of_other) = counting(alg_id::ECDSA_SHA384);
        assert!(of_other.verify_signature(b"key", b"bytes", b"keybytes").is_ok());
        assert_eq!(other.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_thread_remembers_a_bounded_number() {
        let (_, remembering) = counting(alg_id::ECDSA_SHA256);
        for number in 0..u32::try_from(REMEMBERED_MAX).unwrap() * 2 + 10 {
            let message = number.to_be_bytes();
            let signature = [&b"key"[..], &message].concat();
            assert!(remembering.verify_signature(b"key", &message, &signature).is_ok());
            HOLDS.with_borrow(|holds| assert!(holds.len() <= REMEMBERED_MAX, "{}", holds.len()));
        }
    }
}
