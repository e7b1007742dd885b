//! Whether a peer that was let in would still be let in.
//!
//! A connection lives for longer than what let it in: a certificate expires, a CA takes it back, the
//! bundle loses the CA, a new plan asks for more. Everything that is needed to judge that again is kept once for
//! all connections on which the same was shown at the same hop; each of them holds one pointer to it. What was
//! entered while a plan or a credential changed is judged by what holds then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, SHA256};
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::fault;
use super::presented::Presented;
use super::requirements::Requirements;
use crate::plan::Route;
use crate::plan::outcome::{TlsFaultKind, Withdrawal};
use crate::plan::succession::Hop;

/// What lets peers in by their certificates.
pub(crate) trait Verify: Send + Sync {
    /// The number of the credential's generation that is current; 0 while there is none.
    fn generation(&self) -> u64;

    /// The verdict of the current generation on a chain, leaf first; `None` while there is none.
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Verdict>;
}

/// What a generation of a credential makes of a chain.
pub(crate) struct Verdict {
    /// The number of the generation.
    pub(crate) generation: u64,
    /// When the first certificate of the chain expires, up to the root, in seconds since 1970; or why it does not
    /// do.
    pub(crate) until: Result<Duration, Error>,
}

/// Who let a peer in, by which generation of its credential, and until when.
#[derive(Clone)]
pub struct Voucher {
    pub(crate) verifier: Arc<dyn Verify>,
    pub(crate) generation: u64,
    pub(crate) until: Duration,
}

/// What a peer has shown.
pub enum Shown<'session> {
    /// Nothing: the hop is plaintext.
    Plaintext,
    /// In a handshake, the certificates that it sent, which may be none.
    Tls(&'session [CertificateDer<'static>], Option<&'session Arc<Presented>>, &'session Voucher),
}

/// A peer that was let in.
pub struct Standing {
    pub(crate) hop: Hop,
    pub(crate) evidence: Evidence,
    /// When the first certificate of its chain expires, up to the root, in seconds since 1970.
    until: AtomicU64,
    /// Why it would not be let in any more, by what it was judged by last; 0 if it would.
    withdrawn: AtomicU8,
    judged: Mutex<Judged>,
}

/// What a peer has shown, as long as it is connected.
pub(crate) enum Evidence {
    Plaintext,
    Anonymous,
    Certificate { chain: Vec<CertificateDer<'static>>, presented: Arc<Presented> },
}

/// By what a peer was judged last.
struct Judged {
    /// The generation of the plan.
    plan: u64,
    /// The generation of the credential; `None` if that is still to be done.
    credential: Option<u64>,
    bar: Bar,
}

/// What a peer must have shown.
pub(crate) enum Bar {
    /// What it has.
    Cleared,
    /// What it has not.
    Missed,
    /// A certificate that this accepts, of somebody who may take the route.
    Certificate(Arc<dyn Verify>, Option<Arc<Route>>),
}

impl Standing {
    fn new(hop: Hop, shown: &Shown<'_>, plan: u64) -> Self {
        let (evidence, credential, bar) = match shown {
            Shown::Plaintext => (Evidence::Plaintext, None, Bar::Cleared),
            Shown::Tls(chain, Some(presented), voucher) if !chain.is_empty() => (
                Evidence::Certificate { chain: chain.to_vec(), presented: (*presented).clone() },
                Some(voucher.generation),
                Bar::Certificate(voucher.verifier.clone(), None),
            ),
            Shown::Tls(..) => (Evidence::Anonymous, None, Bar::Cleared),
        };
        let until = match shown {
            Shown::Tls(_, Some(_), voucher) => voucher.until.as_secs(),
            Shown::Tls(..) | Shown::Plaintext => u64::MAX,
        };
        let judged = Mutex::new(Judged { plan, credential, bar });
        Self { hop, evidence, until: AtomicU64::new(until), withdrawn: AtomicU8::new(0), judged }
    }

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

    /// The same was shown once more. Where one way to a CA has expired, another may be left.
    fn shown_again(&self, shown: &Shown<'_>) {
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Shown::Tls(_, _, voucher) = shown
            && judged.credential == Some(voucher.generation)
        {
            self.until.fetch_max(voucher.until.as_secs(), Ordering::AcqRel);
        }
    }

    /// Judges it by what holds now, unless that was done.
    fn examine(&self, requirements: Option<&Requirements>, now: SystemTime) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requirements) = requirements.filter(|new| new.generation > judged.plan) {
            judged.plan = requirements.generation;
            // Of a hop that is gone, what was asked of it last counts on.
            if let Some(bar) = requirements.of(self) {
                (judged.bar, judged.credential) = (bar, None);
            }
        }
        let withdrawn = match (&judged.bar, &self.evidence) {
            (Bar::Cleared, _) => None,
            (Bar::Certificate(verifier, route), Evidence::Certificate { chain, presented }) => {
                if judged.credential == Some(verifier.generation()) {
                    return;
                }
                let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let found = verifier.verify(chain, UnixTime::since_unix_epoch(now));
                // Without a usable generation there is nothing new to judge by.
                let Some(Verdict { generation, until }) = found else { return };
                let rules = route.as_ref().map(|route| &route.rules);
                let denied = || rules.is_some_and(|rules| !rules.names_let_in(Some(&presented.identity)));
                let withdrawn = match &until {
                    Err(error) => withdrawal(error),
                    Ok(until) => {
                        self.until.store(until.as_secs(), Ordering::Release);
                        denied().then_some(Withdrawal::Permission)
                    }
                };
                judged.credential = Some(generation);
                withdrawn
            }
            (Bar::Missed | Bar::Certificate(..), _) => Some(Withdrawal::Permission),
        };
        let code = match withdrawn {
            None => 0,
            Some(Withdrawal::Expired) => 1,
            Some(Withdrawal::Revoked) => 2,
            Some(Withdrawal::Ca) => 3,
            Some(Withdrawal::Permission) => 4,
        };
        self.withdrawn.store(code, Ordering::Release);
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
type Known = HashMap<(Hop, Digest), Weak<Standing>>;

/// The peers of the process that were let in and are still connected, whatever plan they began with.
#[derive(Default)]
pub struct Register {
    known: Mutex<Known>,
    /// What is asked of new ones; nothing yet while the first plan holds.
    requirements: ArcSwapOption<Requirements>,
}

impl Register {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a peer that was let in at a hop under this generation of the plan.
    pub fn enter(&self, hop: Hop, shown: &Shown<'_>, plan: u64, now: SystemTime) -> Arc<Standing> {
        let standing = self.find_or_enter(hop, shown, plan);
        // The next plan or credential came while hands were shaken, and may have judged its peers already.
        let requirements = self.requirements.load();
        let passed_over = requirements.as_ref().is_some_and(|current| current.generation != plan)
            || matches!(shown, Shown::Tls(_, _, voucher) if voucher.verifier.generation() != voucher.generation);
        if passed_over {
            standing.examine(requirements.as_deref(), now);
        }
        standing
    }

    fn find_or_enter(&self, hop: Hop, shown: &Shown<'_>, plan: u64) -> Arc<Standing> {
        let key = (hop, digest(shown));
        let mut known = self.lock();
        if let Some(standing) = known.get(&key).and_then(Weak::upgrade) {
            standing.shown_again(shown);
            return standing;
        }
        let standing = Arc::new(Standing::new(key.0.clone(), shown, plan));
        // Before the table would grow, those that have left make room.
        if known.len() == known.capacity() {
            known.retain(|_, standing| standing.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&standing));
        standing
    }

    /// Goes on with what another plan asks.
    pub fn follow(&self, requirements: Requirements, now: SystemTime) {
        self.requirements.store(Some(Arc::new(requirements)));
        self.examine(now);
    }

    /// Judges those that were not judged yet by what holds now.
    pub fn examine(&self, now: SystemTime) {
        let requirements = self.requirements.load_full();
        let open: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        for standing in open {
            standing.examine(requirements.as_deref(), now);
        }
    }
}

/// Of what was shown. That of nothing is no digest of anything.
fn digest(shown: &Shown<'_>) -> Digest {
    let mut digest = Digest::default();
    let Shown::Tls(chain, ..) = shown else { return digest };
    let mut context = Context::new(&SHA256);
    for der in *chain {
        context.update(&der.len().to_be_bytes());
        context.update(der);
    }
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::ListenerKey;

    const UNTIL: Duration = Duration::from_secs(100);

    /// Accepts whom it was told nothing of, and counts the questions.
    #[derive(Default)]
    struct Judge {
        generation: AtomicU64,
        answers: Mutex<HashMap<u8, Result<Duration, CertificateError>>>,
        asked: AtomicU64,
    }

    impl Verify for Judge {
        fn generation(&self) -> u64 {
            self.generation.load(Ordering::Relaxed)
        }

        fn verify(&self, chain: &[CertificateDer<'_>], _: UnixTime) -> Option<Verdict> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answers.lock().unwrap().get(&chain[0][0]).cloned().unwrap_or(Ok(UNTIL));
            Some(Verdict { generation: self.generation(), until: answer.map_err(Error::from) })
        }
    }

    impl Judge {
        /// The next generation answers this of a peer.
        fn next(&self, name: u8, answer: Result<Duration, CertificateError>) {
            self.answers.lock().unwrap().insert(name, answer);
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hop() -> Hop {
        Hop::Client(ListenerKey::At(([127, 0, 0, 1], 1).into()), None)
    }

    fn enter_by(register: &Register, judge: &Arc<Judge>, name: &[u8], until: Duration) -> Arc<Standing> {
        let presented = Arc::default();
        let voucher = Voucher { verifier: judge.clone(), generation: judge.generation(), until };
        let chain = [CertificateDer::from(name.to_vec())];
        register.enter(hop(), &Shown::Tls(&chain, Some(&presented), &voucher), 1, at(0))
    }

    /// A peer whose certificate, of this name, is accepted until it expires.
    pub(crate) fn enter(register: &Register, name: u8, until: Duration) -> Arc<Standing> {
        enter_by(register, &Arc::default(), &[name], until)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn one_peer_has_one_standing_and_each_generation_judges_it_once() {
        let (register, judge) = (Register::default(), Arc::<Judge>::default());
        let enter = |name: u8| enter_by(&register, &judge, &[name], UNTIL);
        let (one, again, other) = (enter(1), enter(1), enter(2));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
        let asked = || judge.asked.load(Ordering::Relaxed);
        register.examine(at(0));
        assert_eq!(asked(), 0);
        judge.next(1, Err(CertificateError::Revoked));
        register.examine(at(0));
        register.examine(at(0));
        assert_eq!(asked(), 2);
        assert_eq!((one.withdrawn(at(0)), other.withdrawn(at(0))), (Some(Withdrawal::Revoked), None));
        // What was taken back is given back.
        judge.next(1, Ok(UNTIL));
        register.examine(at(0));
        assert_eq!(one.withdrawn(at(0)), None);
    }

    #[test]
    fn who_is_entered_by_a_generation_that_has_passed_is_judged_at_once() {
        let (register, judge) = (Register::default(), Arc::<Judge>::default());
        judge.next(1, Err(CertificateError::Revoked));
        let presented = Arc::default();
        let voucher = Voucher { verifier: judge, generation: 0, until: UNTIL };
        let chain = [CertificateDer::from(vec![1])];
        let late = register.enter(hop(), &Shown::Tls(&chain, Some(&presented), &voucher), 1, at(0));
        assert_eq!(late.withdrawn(at(0)), Some(Withdrawal::Revoked));
    }

    #[test]
    fn a_certificate_expires_without_being_judged() {
        let standing = enter(&Register::default(), 1, UNTIL);
        assert_eq!(
            (standing.withdrawn(at(100)), standing.withdrawn(at(101))),
            (None, Some(Withdrawal::Expired))
        );
    }

    #[test]
    fn a_chain_holds_for_as_long_as_the_last_verdict_on_it_says() {
        let (register, judge) = (Register::default(), Arc::<Judge>::default());
        judge.next(1, Ok(UNTIL));
        let enter = |until, generation| {
            let voucher = Voucher { verifier: judge.clone(), generation, until: Duration::from_secs(until) };
            let chain = [CertificateDer::from(vec![1])];
            register.enter(hop(), &Shown::Tls(&chain, Some(&Arc::default()), &voucher), 1, at(0))
        };
        let standing = enter(100, 1);
        // Let in again a second time, by a way that holds for longer; a generation before has no say.
        enter(200, 1);
        enter(901, 0);
        assert_eq!(standing.withdrawn(at(200)), None);
        assert_eq!(standing.withdrawn(at(201)), Some(Withdrawal::Expired));
        judge.next(1, Ok(Duration::from_secs(150)));
        register.examine(at(0));
        assert_eq!(standing.withdrawn(at(151)), Some(Withdrawal::Expired));
        judge.next(1, Err(CertificateError::UnknownRevocationStatus));
        register.examine(at(0));
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
            enter_by(&register, &Arc::default(), &round.to_be_bytes(), UNTIL);
        }
        assert!(register.lock().len() < 100, "{}", register.lock().len());
    }
}
