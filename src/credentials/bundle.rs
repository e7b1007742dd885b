//! Bytes -> [`Credential`]: parsed, consistent, and fit for what it is to be used for, or a reason why not.
//!
//! The one file outside `tls/` that names rustls: its signing key types load every format a key
//! comes in (PKCS#8, SEC1, PKCS#1), and tell whether a key belongs to a certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{Facts, Purposes, printable};
use super::crl::{Crl, CrlFacts};
use super::layout::{self, Named};
use super::needs::{Needs, Use};
use super::read::Content;
use super::refusal::{Refusal, Warning, date};
use super::trust::{CrlExpired, Revocation, TrustBundle};

/// One generation of checked key material.
pub struct Credential {
    /// Counts the versions published under one name, from 1.
    pub generation: u64,
    /// The chain and its key; `None` where the needs did not ask for any.
    pub certified_key: Option<Arc<CertifiedKey>>,
    /// The CAs that verify the other side; empty where the needs did not ask for any.
    pub trust: Arc<TrustBundle>,
    /// Whether our own chain ends in one of those CAs.
    pub is_own_ca: bool,
}

impl Credential {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.certified_key.is_none() && self.trust.is_empty()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// What is in a credential's files, and what it comes to.
#[derive(Debug)]
pub struct Inspection {
    /// Every certificate and list that was read, in the order of reading, also of a credential that is refused.
    pub items: Vec<Item>,
    /// What the operator should know of it.
    pub warnings: Vec<Warning>,
    /// The credential, or why there is none.
    pub verdict: Result<Credential, Refusal>,
}

/// One certificate or revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The file that it is in.
    pub file: PathBuf,
    /// What it is.
    pub what: What,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Part of our own chain: the leaf is the first.
    Chain(Facts),
    /// A CA that verifies the other side.
    Ca(Facts),
    /// What a CA has revoked.
    List(CrlFacts),
}

/// Checks a set of files and makes a credential of them. `previous` is the one in use: what has expired
/// since it was published is not news, and must not keep a new revocation list out.
pub fn check(
    content: &Content,
    needs: &Needs,
    generation: u64,
    previous: Option<&Credential>,
    now: SystemTime,
) -> Inspection {
    let now =
        UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let mut check = Check { content, needs, previous, now, items: Vec::new(), warnings: Vec::new() };
    let verdict = check.run(generation);
    Inspection { items: check.items, warnings: check.warnings, verdict }
}

/// What becomes of a credential as time passes, of which nobody is told by a change of its files.
pub fn aged(items: &[Item], now: SystemTime) -> Vec<Warning> {
    let now =
        now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
    let leaf = items.iter().position(|item| matches!(item.what, What::Chain(_)));
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match &item.what {
            What::Chain(facts) if Some(index) == leaf && facts.not_after < now => {
                found.push(Warning::Expired(date(facts.not_after)));
            }
            What::Ca(facts) if facts.not_after < now => {
                found.push(Warning::CaExpired(facts.holder(), date(facts.not_after)));
            }
            What::List(facts) if facts.next_update < now => {
                found.push(Warning::CrlExpired(facts.issuer.clone(), date(facts.next_update)));
            }
            What::Chain(_) | What::Ca(_) | What::List(_) => {}
        }
    }
    found
}

struct Check<'a> {
    content: &'a Content,
    needs: &'a Needs,
    previous: Option<&'a Credential>,
    now: UnixTime,
    items: Vec<Item>,
    warnings: Vec<Warning>,
}

impl Check<'_> {
    fn run(&mut self, generation: u64) -> Result<Credential, Refusal> {
        let (content, everything) = (self.content, self.needs.everything);
        let wants_pair = !self.needs.uses.is_empty() || (everything && layout::has_key_pair(content));
        let pair = if wants_pair { Some(self.key_pair()?) } else { None };
        let wants_ca = self.needs.ca || (everything && layout::has_ca(content));
        let trust = if wants_ca { self.trust()? } else { TrustBundle::default() };
        let mut is_own_ca = false;
        if let Some((path, certified_key)) = &pair
            && !trust.is_empty()
        {
            is_own_ca = self.own_chain(path, certified_key, &trust)?;
        }
        Ok(Credential {
            generation,
            certified_key: pair.map(|(_, certified_key)| Arc::new(certified_key)),
            trust: Arc::new(trust),
            is_own_ca,
        })
    }

    /// The certificate chain and its key, fit for each use.
    fn key_pair(&mut self) -> Result<(PathBuf, CertifiedKey), Refusal> {
        let [chain_file, key_file] = layout::key_pair(self.content)?;
        let path = chain_file.path.clone();
        let chain = certificates(&chain_file)?;
        for der in &chain {
            let facts = facts(&path, der)?;
            self.items.push(Item { file: path.clone(), what: What::Chain(facts) });
        }
        let is_news = !self.previous.is_some_and(|previous| is_shown_by(previous, &chain));
        let facts: Vec<_> = self.chain().cloned().collect();
        if let Some((leaf, intermediates)) = facts.split_first() {
            self.leaf(&path, leaf, is_news)?;
            let expired = intermediates.iter().find(|facts| is_news && facts.not_after < self.now_signed());
            if let Some(facts) = expired {
                let found = format!("one that expired on {} ({})", date(facts.not_after), facts.holder());
                return Err(unfit(&path, "valid certificates up to the CA", found));
            }
        }
        let key = private_key(&key_file)?;
        let signing_key = any_supported_type(&key)
            .map_err(|error| Refusal::UnsupportedKey(key_file.path.clone(), error.to_string()))?;
        let certified_key = CertifiedKey::new(chain, signing_key);
        if certified_key.keys_match().is_err() {
            return Err(Refusal::KeyMismatch { key: key_file.path, chain: path });
        }
        Ok((path, certified_key))
    }

    /// Whether a certificate can be shown: its dates, its purpose, its names.
    fn leaf(&mut self, path: &Path, leaf: &Facts, is_news: bool) -> Result<(), Refusal> {
        if leaf.is_ca {
            return Err(unfit(
                path,
                "the certificate of a server or client",
                format!("a CA ({})", leaf.holder()),
            ));
        }
        if is_news && self.now_signed() > leaf.not_after {
            let found = format!("one that expired on {}", date(leaf.not_after));
            return Err(unfit(path, "a valid certificate", found));
        }
        if is_news && self.now_signed() < leaf.not_before {
            return Err(Refusal::Early { path: path.to_owned(), not_before: leaf.not_before });
        }
        for usage in &self.needs.uses {
            let (fits, expected) = match usage {
                Use::Server(_) => (leaf.purposes.is_none_or(|may| may.server), "a certificate for servers"),
                Use::Client => (leaf.purposes.is_none_or(|may| may.client), "a certificate for clients"),
            };
            if !fits {
                let expected = format!("{expected} (extended key usage)");
                return Err(unfit(path, &expected, format!("one for another use ({})", leaf.holder())));
            }
        }
        if let Some(host) = self.needs.uncovered(&leaf.names) {
            let expected = format!("a certificate for the host {host}");
            return Err(unfit(path, &expected, format!("one for {}", listed(leaf))));
        }
        // Without hosts it is shown in a mesh, whose clients look for its URI.
        let is_server =
            self.needs.uses.iter().any(|usage| matches!(usage, Use::Server(hosts) if !hosts.is_empty()));
        if listed(leaf) == NO_NAME {
            self.warnings.push(Warning::NoName);
        } else if is_server && leaf.names.dns_names.is_empty() {
            self.warnings.push(Warning::NoDnsName);
        }
        Ok(())
    }

    /// The CAs that verify the other side, and what they have revoked.
    fn trust(&mut self) -> Result<TrustBundle, Refusal> {
        let (ca_file, crl_file) = layout::ca(self.content)?;
        let mut cas = Vec::new();
        for der in certificates(&ca_file)? {
            let facts = facts(&ca_file.path, &der)?;
            self.items.push(Item { file: ca_file.path.clone(), what: What::Ca(facts.clone()) });
            if !facts.is_ca {
                let found = format!("a certificate that may sign no others ({})", facts.holder());
                return Err(unfit(&ca_file.path, "CA certificates", found));
            }
            cas.push((der, facts));
        }
        let used = crl_file.as_ref().map(|file| file.path.clone());
        let stray = layout::stray_crls(self.content, used.as_deref());
        self.warnings.extend(stray.into_iter().map(Warning::StrayCrl));
        let lists = match crl_file {
            Some(file) => self.lists(&file, &cas)?,
            None => Vec::new(),
        };
        let lists = lists.into_iter().map(|crl| crl.list).collect();
        let malformed = |why: String| Refusal::Malformed(ca_file.path.clone(), why);
        let trust = TrustBundle::new(&cas, lists, self.needs.crl_expired)
            .map_err(|error| malformed(format!("a bad certificate ({error})")))?;
        if trust.is_empty() {
            let expected = "a CA that no other one of the file vouches for";
            return Err(unfit(&ca_file.path, expected, "CAs that vouch for each other".to_owned()));
        }
        Ok(trust)
    }

    fn lists(
        &mut self,
        file: &Named<'_>,
        cas: &[(CertificateDer<'static>, Facts)],
    ) -> Result<Vec<Crl>, Refusal> {
        let ders: Vec<_> = pem_sections::<CertificateRevocationListDer<'static>>(file, "X509 CRL")?;
        let parsed = cas.iter().filter_map(|(der, _)| X509Certificate::from_der(der).ok());
        let parsed: Vec<_> = parsed.map(|(_, certificate)| certificate).collect();
        let mut lists = Vec::new();
        for der in ders {
            let expected = "a revocation list of a CA of the bundle";
            let crl = Crl::check(&der, &parsed).map_err(|found| unfit(&file.path, expected, found))?;
            self.items.push(Item { file: file.path.clone(), what: What::List(crl.facts.clone()) });
            let is_late = crl.facts.next_update < self.now_signed();
            if is_late && self.needs.crl_expired == CrlExpired::Refuse {
                let due = date(crl.facts.next_update);
                let found = format!("one whose successor was due on {due} ({})", crl.facts.issuer);
                return Err(unfit(&file.path, "a revocation list that is up to date", found));
            }
            lists.push(crl);
        }
        Ok(lists)
    }

    /// Whether our own chain ends in a CA of the bundle. It need not: the other side may know another CA.
    /// But one that says that a CA of the bundle issued it must have been issued by it.
    fn own_chain(&mut self, path: &Path, own: &CertifiedKey, trust: &TrustBundle) -> Result<bool, Refusal> {
        let bad = |error: Error| Refusal::Malformed(path.to_owned(), format!("a bad certificate ({error})"));
        let Some((leaf, intermediates)) = own.cert.split_first() else {
            return Ok(false);
        };
        let leaf = EndEntityCert::try_from(leaf).map_err(bad)?;
        let shown_to_servers = match self.needs.uses.first() {
            Some(Use::Server(_)) => false,
            Some(Use::Client) => true,
            None => self.purposes().is_some_and(|may| !may.server),
        };
        let usage = if shown_to_servers { KeyUsage::client_auth() } else { KeyUsage::server_auth() };
        let verify = |revocation| trust.verify(&leaf, intermediates, self.now, usage, revocation);
        match verify(Revocation::Ignored) {
            Ok(_) => {
                if trust.has_lists() && verify(Revocation::Checked) == Err(Error::CertRevoked) {
                    self.warnings.push(Warning::OwnRevoked);
                }
                Ok(true)
            }
            Err(error)
                if error == Error::UnknownIssuer
                    || (error == Error::InvalidSignatureForPublicKey && self.issuer_has_another_key()) =>
            {
                let issuer = self.chain().last().map(|facts| facts.issuer.clone()).unwrap_or_default();
                self.warnings.push(Warning::ForeignIssuer(issuer));
                Ok(false)
            }
            // Told as a warning if it was published before it expired; otherwise it was refused above.
            Err(Error::CertExpired { .. } | Error::CertNotValidYet { .. }) => Ok(true),
            Err(error) => {
                let expected = "a chain that a CA of the bundle issued";
                Err(unfit(path, expected, format!("one that it did not ({error})")))
            }
        }
    }

    /// Whether the CA that issued our chain is not in the bundle, but one with its name and other keys: a CA that
    /// was given a new key, of which the other side may know both.
    fn issuer_has_another_key(&self) -> bool {
        let Some(last) = self.chain().last() else { return false };
        let Some(signed_by) = &last.issuer_key_id else { return false };
        let mut namesakes = self.items.iter().filter_map(|item| match &item.what {
            What::Ca(facts) if facts.subject == last.issuer => Some(facts),
            What::Ca(_) | What::Chain(_) | What::List(_) => None,
        });
        namesakes.all(|ca| ca.key_id.as_ref().is_some_and(|key| key != signed_by))
    }

    fn chain(&self) -> impl Iterator<Item = &Facts> {
        self.items.iter().filter_map(|item| match &item.what {
            What::Chain(facts) => Some(facts),
            What::Ca(_) | What::List(_) => None,
        })
    }

    fn purposes(&self) -> Option<Purposes> {
        self.chain().next()?.purposes
    }

    fn now_signed(&self) -> i64 {
        i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX)
    }
}

fn facts(path: &Path, der: &CertificateDer<'_>) -> Result<Facts, Refusal> {
    let facts = Facts::parse(der).map_err(|why| Refusal::Malformed(path.to_owned(), why))?;
    match &facts.weakness {
        Some(weakness) => {
            let found = format!("{weakness} ({})", facts.holder());
            Err(unfit(path, "certificates that are strong enough", found))
        }
        None => Ok(facts),
    }
}

fn unfit(path: &Path, expected: &str, found: String) -> Refusal {
    Refusal::Unfit { path: path.to_owned(), expected: expected.to_owned(), found }
}

const NO_NAME: &str = "no name";

/// The names of a certificate, for people.
fn listed(leaf: &Facts) -> String {
    let names = leaf.names.names();
    if names.is_empty() { NO_NAME.to_owned() } else { printable(&names.join(", ")) }
}

fn is_shown_by(previous: &Credential, chain: &[CertificateDer<'_>]) -> bool {
    let shown = previous.certified_key.as_ref().and_then(|shown| shown.cert.first());
    shown.is_some() && shown == chain.first()
}

fn certificates(file: &Named<'_>) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    pem_sections(file, "CERTIFICATE")
}

fn pem_sections<T: PemObject>(file: &Named<'_>, kind: &'static str) -> Result<Vec<T>, Refusal> {
    let found: Result<Vec<_>, _> = T::pem_slice_iter(file.bytes).collect();
    let found = found.map_err(|error| malformed(file, &error))?;
    // The iterator passes over sections of other kinds in silence, so the count is what tells.
    if found.is_empty() { Err(no_section(file, kind)) } else { Ok(found) }
}

fn private_key(file: &Named<'_>) -> Result<PrivateKeyDer<'static>, Refusal> {
    match PrivateKeyDer::from_pem_slice(file.bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(no_section(file, "PRIVATE KEY")),
        Err(error) => Err(malformed(file, &error)),
    }
}

fn malformed(file: &Named<'_>, error: &pem::Error) -> Refusal {
    Refusal::Malformed(file.path.clone(), error.to_string())
}

fn no_section(file: &Named<'_>, kind: &'static str) -> Refusal {
    // The first byte of every structure in DER, and of no text.
    if file.bytes.first() == Some(&0x30) {
        return Refusal::Malformed(file.path.clone(), "DER".to_owned());
    }
    Refusal::NoSection(file.path.clone(), kind)
}
