//! All problems of a configuration at once: where, what was found, what was expected.
//!
//! A problem of a flag is one line. A problem of a file is told with its line and column, the resource and
//! the path of the field, the line itself with a caret below, and what was probably meant.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;

use super::document::{Spot, join};
use super::sources::{Place, Sources};

/// Problems that are kept at most; what is over is counted only.
const PROBLEMS_MAX: usize = 1000;

/// Everything that is wrong with a configuration, and what is allowed but should be known.
#[derive(Debug, Default)]
pub struct Report {
    problems: Vec<Problem>,
    sources: Arc<Sources>,
    errors: usize,
    warnings: usize,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Problem {
    severity: Severity,
    place: Whence,
    /// What is wrong, in lower case, found and expected, the value last.
    message: String,
    /// A field below the place, where the place is that of the mapping without it.
    field: String,
    help: Option<String>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What was asked for cannot be done.
    Error,
    /// It can be done, but perhaps it is not what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whence {
    /// In a flag.
    Flag(&'static str),
    /// In a file as a whole.
    File(String),
    /// At a place in a file.
    Place(Place),
}

impl Problem {
    /// Says which field below the place is meant.
    pub fn field(&mut self, name: impl Into<String>) -> &mut Self {
        self.field = name.into();
        self
    }

    /// Says what was probably meant, or what to do.
    pub fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help = Some(text.into());
        self
    }
}

impl Report {
    /// A report on what these texts say.
    pub fn on(sources: Arc<Sources>) -> Self {
        Self { sources, ..Self::default() }
    }

    /// Adds a problem of a flag.
    pub fn add(&mut self, place: &'static str, message: impl Into<String>) {
        self.push(Severity::Error, Whence::Flag(place), message.into());
    }

    /// Adds what is allowed but should be known of a flag.
    pub fn caution(&mut self, place: &'static str, message: impl Into<String>) {
        self.push(Severity::Warning, Whence::Flag(place), message.into());
    }

    /// Keeps a value, or notes why there is none.
    pub fn note<T>(&mut self, place: &'static str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(place, message)).ok()
    }

    /// Adds an error at a place of a file.
    pub fn error(&mut self, place: Place, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, Whence::Place(place), message.into())
    }

    /// Adds a warning at a place of a file.
    pub fn warning(&mut self, place: Place, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Warning, Whence::Place(place), message.into())
    }

    /// Adds something worth knowing at a place of a file.
    pub fn remark(&mut self, place: Place, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Note, Whence::Place(place), message.into())
    }

    /// Adds an error of a file or folder as a whole.
    pub fn file(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Error, Whence::File(name.into()), message.into());
    }

    fn push(&mut self, severity: Severity, place: Whence, message: String) -> &mut Problem {
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => {}
        }
        // The last place is written again and again once the report is full: nobody reads the thousandth.
        self.problems.truncate(PROBLEMS_MAX);
        self.problems.push(Problem { severity, place, message, field: String::new(), help: None });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Whether nothing is wrong. Warnings are not wrong.
    pub fn is_empty(&self) -> bool {
        self.errors == 0
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// What is allowed but should be known, a line each.
    pub fn warning_lines(&self) -> Vec<String> {
        let warnings = self.problems.iter().filter(|problem| problem.severity == Severity::Warning);
        warnings.map(|problem| Told::new(problem, &self.sources).headline()).collect()
    }

    /// The texts the report is on.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// For a person: errors first, then warnings and notes, each with its line, the counts last.
    pub fn render(&self, coloured: bool) -> String {
        let mut text = String::new();
        for told in self.told() {
            // Writing to a String cannot fail.
            let _ = told.render(&mut text, coloured);
        }
        let _ = writeln!(text, "{}, {}", counted(self.errors, "error"), counted(self.warnings, "warning"));
        text
    }

    /// For a machine.
    pub fn json(&self) -> String {
        let report = serde_json::json!({
            "errors": self.errors, "warnings": self.warnings, "problems": self.told().collect::<Vec<_>>(),
        });
        format!("{report}\n")
    }

    fn told(&self) -> impl Iterator<Item = Told<'_>> {
        let mut order: Vec<&Problem> = self.problems.iter().collect();
        order.sort_by(|one, other| (one.severity, &one.place).cmp(&(other.severity, &other.place)));
        order.into_iter().map(|problem| Told::new(problem, &self.sources))
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

impl fmt::Display for Report {
    /// One line an error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        for (index, problem) in errors.enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&Told::new(problem, &self.sources).headline())?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A problem with all that is known of its place.
#[derive(Serialize)]
struct Told<'report> {
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'report str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'report str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    message: &'report str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'report str>,
    #[serde(skip)]
    source_line: Option<&'report str>,
}

impl<'report> Told<'report> {
    fn new(problem: &'report Problem, sources: &'report Sources) -> Self {
        let mut told = Self {
            severity: problem.severity,
            file: None,
            line: None,
            column: None,
            resource: None,
            field: problem.field.clone(),
            message: &problem.message,
            help: problem.help.as_deref(),
            source_line: None,
        };
        match &problem.place {
            Whence::Flag(name) => told.file = Some(name),
            Whence::File(name) => told.file = Some(name),
            Whence::Place(place) => {
                let Spot { line, column } = place.spot;
                told.file = Some(sources.name(*place));
                (told.line, told.column) = (Some(line), Some(column));
                told.resource = sources.resource(*place);
                told.field = join(&sources.path(*place), &problem.field);
                told.source_line = sources.line(*place);
            }
        }
        told
    }

    fn headline(&self) -> String {
        let mut text = self.file.unwrap_or_default().to_owned();
        if let (Some(line), Some(column)) = (self.line, self.column) {
            let _ = write!(text, ":{line}:{column}");
        }
        for part in [self.resource, Some(self.field.as_str()), Some(self.message)].into_iter().flatten() {
            if !part.is_empty() {
                let _ = write!(text, ": {}", visible(part));
            }
        }
        text
    }

    fn render(&self, text: &mut String, coloured: bool) -> fmt::Result {
        let (name, colour) = match self.severity {
            Severity::Error => ("error", "\x1b[1;31m"),
            Severity::Warning => ("warning", "\x1b[1;33m"),
            Severity::Note => ("note", "\x1b[1;36m"),
        };
        let paint = |part: &str| if coloured { format!("{colour}{part}\x1b[0m") } else { part.to_owned() };
        writeln!(text, "{}: {}", paint(name), self.headline())?;
        if let (Some(source), Some(line), Some(column)) = (self.source_line, self.line, self.column) {
            let number = line.to_string();
            let indent = " ".repeat(column.saturating_sub(1).min(200) as usize);
            writeln!(text, "  {number} | {}", visible(&source.chars().take(240).collect::<String>()))?;
            writeln!(text, "  {} | {indent}{}", " ".repeat(number.len()), paint("^"))?;
        }
        if let Some(help) = self.help {
            writeln!(text, "  help: {}", visible(help))?;
        }
        Ok(())
    }
}

/// Text of a file, made safe for a terminal: what is no printing character is replaced.
fn visible(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// The word among `known` that was probably meant.
pub fn similar<'known>(found: &str, known: impl IntoIterator<Item = &'known str>) -> Option<&'known str> {
    let plain = |word: &str| word.replace(['_', '-'], "").to_ascii_lowercase();
    let looked_for = plain(found);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&looked_for, &plain(word)), word))
        .filter(|(distance, word)| *distance <= word.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant_is_found_across_case_and_style() {
        let known = ["credentialName", "credentialNames", "subjectAltNames", "mode"];
        for (found, expected) in [
            ("credential_name", Some("credentialName")),
            ("subjectAltName", Some("subjectAltNames")),
            ("Mode", Some("mode")),
            ("modes", Some("mode")),
            ("frobnicate", None),
        ] {
            assert_eq!(similar(found, known), expected, "{found}");
        }
    }

    #[test]
    fn a_flag_is_one_line_and_nothing_reaches_the_terminal_unseen() {
        let mut report = Report::default();
        report.add("--listen", "found \"\x1b[2J\"");
        assert_eq!(report.to_string(), "--listen: found \"\u{fffd}[2J\"");
        assert_eq!((report.errors(), report.warnings()), (1, 0));
        assert!(report.render(false).ends_with("1 error, 0 warnings\n"));
    }

    #[test]
    fn problems_without_end_are_counted_and_not_kept() {
        let mut report = Report::default();
        (0..5000).for_each(|_| report.add("--x", "wrong"));
        assert_eq!(report.errors(), 5000);
        assert!(report.problems.len() <= PROBLEMS_MAX + 1);
    }
}
