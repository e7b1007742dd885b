//! Whether a peer that was let in would still be let in.
//!
//! A connection lives for longer than what let it in: a certificate expires, a CA takes it back, the
//! bundle loses the CA. Everything that is needed to judge that again is kept once for all connections
//! that showed the same chain to the same verifier; each of them holds one pointer to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::fault;
use crate::plan::outcome::{TlsFaultKind, Withdrawal};

/// A peer that was let in.
#[derive(Debug)]
pub struct Standing {
    chain: Vec<CertificateDer<'static>>,
    /// When the first certificate of its chain expires, up to the root, in seconds since 1970.
    until: AtomicU64,
    /// The generation of the credential that it was judged by last.
    examined: AtomicU64,
    /// Why it would not be let in any more, by that generation; 0 if it would.
    withdrawn: AtomicU8,
}

impl Standing {
    /// Why it would not be let in at this moment.
    pub fn withdrawn(&self, now: SystemTime) -> Option<Withdrawal> {
        let judged = match self.withdrawn.load(Ordering::Acquire) {
            1 => Some(Withdrawal::Expired),
            2 => Some(Withdrawal::Revoked),
            3 => Some(Withdrawal::Ca),
            4 => Some(Withdrawal::Permission),
            _ => None,
        };
        let until = Duration::from_secs(self.until.load(Ordering::Acquire));
        let expired = now.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|now| now > until);
        judged.or(expired.then_some(Withdrawal::Expired))
    }

    fn judge(&self, generation: u64, verdict: &Result<Duration, Error>) {
        if let Ok(until) = verdict {
            self.until.store(until.as_secs(), Ordering::Release);
        }
        let code = match verdict.as_ref().err().and_then(withdrawal) {
            None => 0,
            Some(Withdrawal::Expired) => 1,
            Some(Withdrawal::Revoked) => 2,
            Some(Withdrawal::Ca) => 3,
            Some(Withdrawal::Permission) => 4,
        };
        self.withdrawn.store(code, Ordering::Release);
        self.examined.store(generation, Ordering::Release);
    }
}

/// What a verdict on a new connection means for one that is open.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other faults are of a chain that nobody vouches for")]
fn withdrawal(error: &Error) -> Option<Withdrawal> {
    // Nobody has said that it is revoked: a list is missing or late, which is a reason to let nobody in, and
    // none to cut everybody off.
    if let Error::InvalidCertificate(
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. },
    ) = error
    {
        return None;
    }
    Some(match fault::describe(error).kind {
        TlsFaultKind::Expired => Withdrawal::Expired,
        TlsFaultKind::Revoked => Withdrawal::Revoked,
        TlsFaultKind::WrongName | TlsFaultKind::NotAllowed => Withdrawal::Permission,
        _ => Withdrawal::Ca,
    })
}

type Digest = [u8; 32];

/// The peers that one verifier has let in and that are still connected.
#[derive(Default)]
pub(crate) struct Register(Mutex<HashMap<Digest, Weak<Standing>>>);

impl Register {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Standing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a peer that was let in by this generation; the first certificate of its chain expires then, in
    /// seconds since 1970.
    pub(crate) fn enter(
        &self,
        chain: &[CertificateDer<'static>],
        until: Duration,
        generation: u64,
    ) -> Arc<Standing> {
        let (key, until) = (digest(chain), until.as_secs());
        let mut known = self.lock();
        if let Some(standing) = known.get(&key).and_then(Weak::upgrade) {
            // Where one way to a CA has expired, another may be left.
            if standing.examined.load(Ordering::Acquire) == generation {
                standing.until.fetch_max(until, Ordering::AcqRel);
            }
            return standing;
        }
        let standing = Arc::new(Standing {
            chain: chain.to_vec(),
            until: AtomicU64::new(until),
            examined: AtomicU64::new(generation),
            withdrawn: AtomicU8::new(0),
        });
        // Before the table would grow, those that have left make room.
        if known.len() == known.capacity() {
            known.retain(|_, standing| standing.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&standing));
        standing
    }

    /// Judges those that were not judged by this generation yet.
    pub(crate) fn examine(
        &self,
        generation: u64,
        verify: impl Fn(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Result<Duration, Error>,
        now: SystemTime,
    ) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now = UnixTime::since_unix_epoch(now);
        let due: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let due = due.iter().filter(|standing| standing.examined.load(Ordering::Acquire) != generation);
        for standing in due {
            if let Some((leaf, intermediates)) = standing.chain.split_first() {
                standing.judge(generation, &verify(leaf, intermediates, now));
            }
        }
    }
}

fn digest(chain: &[CertificateDer<'_>]) -> Digest {
    let mut context = Context::new(&SHA256);
    for der in chain {
        context.update(&der.len().to_be_bytes());
        context.update(der);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Duration = Duration::from_secs(100);

    fn enter(register: &Register, name: u8, generation: u64) -> Arc<Standing> {
        register.enter(&[CertificateDer::from(vec![name])], UNTIL, generation)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn one_peer_has_one_standing_and_each_generation_judges_it_once() {
        let register = Register::default();
        let (one, again, other) = (enter(&register, 1, 1), enter(&register, 1, 1), enter(&register, 2, 1));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
        let judged = std::cell::Cell::new(0);
        let revoked = |leaf: &CertificateDer<'_>, _: &[CertificateDer<'_>], _| {
            judged.set(judged.get() + 1);
            if leaf.as_ref() == [1] { Err(CertificateError::Revoked.into()) } else { Ok(UNTIL) }
        };
        register.examine(1, revoked, at(0));
        assert_eq!(judged.get(), 0);
        register.examine(2, revoked, at(0));
        register.examine(2, revoked, at(0));
        assert_eq!(judged.get(), 2);
        assert_eq!((one.withdrawn(at(0)), other.withdrawn(at(0))), (Some(Withdrawal::Revoked), None));
        // What was taken back is given back.
        register.examine(3, |_, _, _| Ok(UNTIL), at(0));
        assert_eq!(one.withdrawn(at(0)), None);
    }

    #[test]
    fn a_certificate_expires_without_being_judged() {
        let standing = enter(&Register::default(), 1, 1);
        assert_eq!(
            (standing.withdrawn(at(100)), standing.withdrawn(at(101))),
            (None, Some(Withdrawal::Expired))
        );
    }

    #[test]
    fn a_chain_holds_for_as_long_as_the_last_verdict_on_it_says() {
        let register = Register::default();
        let standing = enter(&register, 1, 1);
        // Let in again a second time, by a way that holds for longer; a generation before has no say.
        register.enter(&standing.chain, Duration::from_secs(200), 1);
        register.enter(&standing.chain, Duration::from_secs(901), 0);
        assert_eq!(standing.withdrawn(at(200)), None);
        assert_eq!(standing.withdrawn(at(201)), Some(Withdrawal::Expired));
        register.examine(2, |_, _, _| Ok(Duration::from_secs(150)), at(0));
        assert_eq!(standing.withdrawn(at(151)), Some(Withdrawal::Expired));
        register.examine(3, |_, _, _| Err(CertificateError::UnknownRevocationStatus.into()), at(0));
        assert_eq!(standing.withdrawn(at(150)), None);
        assert_eq!(standing.withdrawn(at(151)), Some(Withdrawal::Expired));
    }

    #[test]
    fn a_list_that_is_missing_or_late_cuts_nobody_off() {
        let check = |error: CertificateError, expected: Option<Withdrawal>| {
            assert_eq!(withdrawal(&Error::from(error)), expected);
        };
        check(CertificateError::UnknownRevocationStatus, None);
        check(CertificateError::ExpiredRevocationList, None);
        check(CertificateError::Revoked, Some(Withdrawal::Revoked));
        check(CertificateError::UnknownIssuer, Some(Withdrawal::Ca));
        check(CertificateError::BadSignature, Some(Withdrawal::Ca));
        check(CertificateError::ApplicationVerificationFailure, Some(Withdrawal::Permission));
    }

    #[test]
    fn peers_that_have_left_are_forgotten() {
        let register = Register::default();
        for round in 0..1000_u32 {
            register.enter(&[CertificateDer::from(round.to_be_bytes().to_vec())], UNTIL, 1);
        }
        assert!(register.lock().len() < 100, "{}", register.lock().len());
    }
}
