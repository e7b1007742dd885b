//! `twinlock certs`: everything that is in credential directories, judged as a reload would judge it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::credentials::bundle::{self, Inspection, Item, What};
use crate::credentials::certificate::{Facts, hex};
use crate::credentials::needs::Needs;
use crate::credentials::refusal::{Refusal, Warning, date};
use crate::credentials::store::{Slot, Store};
use crate::credentials::{layout, read};

const DAY: i64 = 24 * 60 * 60;
/// Days left from which on a date is shown as one to see to, and as one that is urgent.
const DAYS_SOON: i64 = 30;
const DAYS_URGENT: i64 = 7;

/// One credential.
#[derive(Debug, Serialize)]
pub struct Sheet {
    /// The name of its directory.
    pub name: String,
    /// Where it is.
    #[serde(serialize_with = "lossy")]
    pub directory: PathBuf,
    /// Whether a gateway would use it.
    pub usable: bool,
    /// Why it would not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is worth knowing of it.
    pub warnings: Vec<String>,
    /// Its certificates, in the order of the files.
    pub certificates: Vec<Certificate>,
    /// What its CAs have revoked.
    pub revocation_lists: Vec<List>,
    #[serde(skip)]
    needs_care: bool,
}

/// One certificate.
#[derive(Debug, Serialize)]
pub struct Certificate {
    /// The file that it is in.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// `leaf`, `intermediate` or `ca`.
    pub role: &'static str,
    /// Who it is about.
    pub subject: String,
    /// Its subject alternative names.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
    /// The kind and size of its key.
    pub key: String,
    /// When it begins to be valid, RFC 3339.
    pub not_before: String,
    /// When it expires, RFC 3339.
    pub not_after: String,
    /// Whole days until then; below zero when it has.
    pub days_left: i64,
}

/// One revocation list.
#[derive(Debug, Serialize)]
pub struct List {
    /// The file that it is in.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// Who signed it.
    pub issuer: String,
    /// When it was issued, RFC 3339.
    pub this_update: String,
    /// When its successor is due, RFC 3339.
    pub next_update: String,
    /// Whole days until then; below zero when it is.
    pub days_left: i64,
    /// How many certificates it revokes.
    pub revoked: usize,
}

impl Sheet {
    /// Whether there is nothing that somebody should see to.
    pub fn is_well(&self) -> bool {
        self.usable && !self.needs_care
    }
}

/// The sheets of a directory: of itself if it is a credential, and of the folders in it; of those all,
/// if there is nothing else that it could be for.
pub fn sheets(directory: &Path, now: SystemTime) -> Result<Vec<Sheet>, String> {
    let is_one = is_credential(directory);
    let unreadable =
        |error: std::io::Error| format!("cannot read {}: {}", directory.display(), read::lower(&error));
    let entries = std::fs::read_dir(directory).map_err(unreadable)?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.path().is_dir() && (!is_one || is_credential(&entry.path())) {
            folders.push(entry.path());
        }
    }
    if folders.is_empty() && !is_one {
        return Err(format!(
            "expected a credential or a folder of credentials, found neither: {}",
            directory.display()
        ));
    }
    folders.sort();
    let itself = is_one.then(|| directory.to_owned());
    Ok(itself.iter().chain(&folders).map(|directory| sheet(directory, now)).collect())
}

/// The sheets of credentials as they are in use, whatever is in their directories by now.
pub fn in_use(store: &Store, now: SystemTime) -> Vec<Sheet> {
    let sheet = |slot: &Arc<Slot>| {
        let status = slot.status();
        let problem = match slot.current() {
            Some(_) => status.refusal.map(|why| format!("what is in its directory is not in use: {why}")),
            None => Some(status.refusal.unwrap_or_else(|| "not looked at yet".to_owned())),
        };
        let aged = bundle::aged(&status.items, now);
        let mut warnings: Vec<_> = status.warnings.into_iter().chain(aged).collect();
        warnings.dedup();
        let name = slot.source().name.to_string();
        let directory = &slot.source().directory;
        Sheet {
            usable: slot.current().is_some(),
            ..filled(name, directory, problem, &warnings, &status.items, now)
        }
    };
    store.slots().map(sheet).collect()
}

fn is_credential(directory: &Path) -> bool {
    layout::FILES.iter().chain([&layout::DATA]).any(|name| directory.join(name).symlink_metadata().is_ok())
}

fn sheet(directory: &Path, now: SystemTime) -> Sheet {
    let needs = Needs { everything: true, ..Needs::default() };
    let (items, mut warnings, verdict) = match read::read(directory) {
        Ok(content) => {
            let Inspection { items, warnings, verdict } = bundle::check(&content, &needs, 1, None, now);
            let warnings: Vec<_> = warnings.into_iter().chain(bundle::aged(&items, now)).collect();
            (items, warnings, verdict.map(|credential| credential.is_empty()))
        }
        Err(error) => (Vec::new(), Vec::new(), Err(Refusal::Read(error))),
    };
    warnings.dedup();
    let problem = match verdict {
        Ok(false) => None,
        Ok(true) => Some(format!("expected a credential, found none of its files: {}", directory.display())),
        Err(refusal) => Some(refusal.to_string()),
    };
    let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
    filled(name, directory, problem, &warnings, &items, now)
}

fn filled(
    name: String,
    directory: &Path,
    problem: Option<String>,
    warnings: &[Warning],
    items: &[Item],
    now: SystemTime,
) -> Sheet {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(seconds).unwrap_or(i64::MAX);
    Sheet {
        name,
        directory: directory.to_owned(),
        usable: problem.is_none(),
        problem,
        needs_care: warnings.iter().any(Warning::is_alert),
        warnings: warnings.iter().map(ToString::to_string).collect(),
        certificates: certificates(items, now),
        revocation_lists: items.iter().filter_map(|item| list(item, now)).collect(),
    }
}

fn certificates(items: &[Item], now: i64) -> Vec<Certificate> {
    let mut seen_leaf = false;
    let mut role = |what: &What| match what {
        What::Ca(_) => "ca",
        What::Chain(_) if std::mem::replace(&mut seen_leaf, true) => "intermediate",
        What::Chain(_) | What::List(_) => "leaf",
    };
    let facts = items.iter().filter_map(|item| match &item.what {
        What::Chain(facts) | What::Ca(facts) => Some((item, facts)),
        What::List(_) => None,
    });
    facts.map(|(item, facts)| certificate(item.file.clone(), role(&item.what), facts, now)).collect()
}

/// The facts of a certificate as they are shown.
pub fn certificate(file: PathBuf, role: &'static str, facts: &Facts, now: i64) -> Certificate {
    Certificate {
        file,
        role,
        subject: facts.subject.clone(),
        names: facts.names.names(),
        issuer: facts.issuer.clone(),
        serial: facts.serial.clone(),
        sha256: hex(&facts.fingerprints.certificate),
        key: facts.key.clone(),
        not_before: date(facts.not_before),
        not_after: date(facts.not_after),
        days_left: (facts.not_after - now).div_euclid(DAY),
    }
}

fn list(item: &Item, now: i64) -> Option<List> {
    let What::List(facts) = &item.what else { return None };
    Some(List {
        file: item.file.clone(),
        issuer: facts.issuer.clone(),
        this_update: date(facts.this_update),
        next_update: date(facts.next_update),
        days_left: (facts.next_update - now).div_euclid(DAY),
        revoked: facts.revoked,
    })
}

/// A path need not be UTF-8, and JSON must be.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// For a terminal.
    On,
    /// For everything else.
    Off,
}

const RED: &str = "31";
const YELLOW: &str = "33";
const GREEN: &str = "32";

/// The sheets as a table for people.
pub fn table(sheets: &[Sheet], colour: Colour) -> String {
    let mut text = String::new();
    for sheet in sheets {
        let verdict = match (&sheet.problem, sheet.needs_care) {
            (Some(_), _) => paint(colour, RED, "unusable"),
            (None, true) => paint(colour, YELLOW, "usable"),
            (None, false) => paint(colour, GREEN, "usable"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  {verdict}  {}",
            shown(&sheet.name),
            shown(&sheet.directory.display().to_string())
        );
        if let Some(problem) = &sheet.problem {
            let _ = writeln!(text, "  {}     {}", paint(colour, RED, "problem"), shown(problem));
        }
        for warning in &sheet.warnings {
            let _ = writeln!(text, "  {}     {}", paint(colour, YELLOW, "warning"), shown(warning));
        }
        for certificate in &sheet.certificates {
            let file = certificate.file.strip_prefix(&sheet.directory).unwrap_or(&certificate.file);
            let _ = writeln!(text, "  {}  {}", shown(&file.to_string_lossy()), certificate.role);
            text.push_str(&rows(certificate, colour));
        }
        for list in &sheet.revocation_lists {
            let file = list.file.strip_prefix(&sheet.directory).unwrap_or(&list.file);
            let _ = writeln!(text, "  {}  revocation list", shown(&file.to_string_lossy()));
            let _ = writeln!(text, "    issuer    {}", shown(&list.issuer));
            let _ = writeln!(text, "    issued    {}", list.this_update);
            let _ = writeln!(text, "    next      {}, {}", list.next_update, left(list.days_left, colour));
            let _ = writeln!(text, "    revoked   {}", list.revoked);
        }
    }
    text
}

/// The rows of one certificate.
pub fn rows(certificate: &Certificate, colour: Colour) -> String {
    let names = if certificate.names.is_empty() { "none".to_owned() } else { certificate.names.join(", ") };
    let valid = format!(
        "{} to {}, {}",
        certificate.not_before,
        certificate.not_after,
        left(certificate.days_left, colour)
    );
    let rows = [
        ("subject", shown(&certificate.subject)),
        ("names", shown(&names)),
        ("issuer", shown(&certificate.issuer)),
        ("serial", certificate.serial.clone()),
        ("sha256", certificate.sha256.clone()),
        ("key", certificate.key.clone()),
        ("valid", valid),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {name:<8}  {value}");
        text
    })
}

fn left(days: i64, colour: Colour) -> String {
    let code = match days {
        ..DAYS_URGENT => RED,
        DAYS_URGENT..DAYS_SOON => YELLOW,
        _ => GREEN,
    };
    let text = if days < 0 { "expired".to_owned() } else { format!("{days} days left") };
    paint(colour, code, &text)
}

fn paint(colour: Colour, code: &str, text: &str) -> String {
    match colour {
        Colour::On => format!("\x1b[{code}m{text}\x1b[0m"),
        Colour::Off => text.to_owned(),
    }
}

/// Text that somebody else chose, made safe for a terminal.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|letter| {
            if letter.is_control() { letter.escape_default().collect::<Vec<_>>() } else { vec![letter] }
        })
        .collect()
}
