//! What the results say, for people: tables, verdict and picture, put into `benches/README.md`.

mod plot;
mod table;
mod verdict;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::arguments::Scenario;
use crate::scenario::FOREIGN_MAX;
use crate::store::{Results, Sample};

/// Between these lines of the README stands what the last report wrote.
const BEGIN: &str = "<!-- results: begin, written by benches/compare -->";
const END: &str = "<!-- results: end -->";
const PICTURE: &str = "results.svg";

/// Everything that was measured, in Markdown.
pub fn markdown(results: &[Results]) -> String {
    let mut text = provenance(results);
    let tables: Vec<_> = table::all().iter().filter_map(|table| table.markdown(results)).collect();
    let _ = write!(
        text,
        "\nMedian (least–most) of the rounds; `×` is the median of the ratios to twinlock in the same round.\n\n{}",
        tables.join("\n")
    );
    let _ = write!(text, "\n### What was asked for\n\n{}", verdict::markdown(results));
    text
}

/// Puts the results into the README of the benchmarks, and the picture beside it.
pub fn write(results: &[Results]) -> Result<(), Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let readme = folder.join("README.md");
    let text = fs::read_to_string(&readme)?;
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| format!("expected in README: {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("expected in README: {END}"))?;
    let results_text = markdown(results);
    let whole = format!("{before}{BEGIN}\n![Results]({PICTURE})\n\n{results_text}{END}{after}");
    fs::write(readme, whole)?;
    Ok(fs::write(folder.join(PICTURE), plot::svg(results))?)
}

/// On what, with what and when this was measured.
fn provenance(results: &[Results]) -> String {
    let Some(last) = results.iter().max_by(|one, other| one.date.cmp(&other.date)) else {
        return "Nothing was measured.\n".into();
    };
    let first = results.iter().map(|results| results.date.as_str()).min().unwrap_or_default();
    let subject = &last.subject;
    let mut text = format!(
        "Measured from {first} to {} on {}, {} cores, Linux {}; twinlock at commit {} (program {}).\n\n",
        last.date, subject.processor, subject.cores, subject.kernel, subject.commit, subject.program
    );
    let samples: Vec<_> = results.iter().flat_map(|results| &results.samples).collect();
    let disturbed =
        |sample: &&&Sample| sample.values.get("foreign").is_some_and(|share| *share > FOREIGN_MAX);
    let _ = writeln!(
        text,
        "Of {} measurements, something else took more than a tenth of a core during {}, and another attempt was no better.\n",
        samples.len(),
        samples.iter().filter(disturbed).count()
    );
    let versions: Vec<_> =
        subject.versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    let _ = writeln!(text, "Versions: {}.", versions.join("; "));
    for (scenario, terms) in [(Scenario::Connections, "equal terms"), (Scenario::Defaults, "own defaults")] {
        let Some(results) = results.iter().find(|results| results.scenario == scenario) else { continue };
        let seen: Vec<_> = results.seen.iter().map(|(who, how)| format!("{} {how}", who.title())).collect();
        let _ = writeln!(text, "\nThe first two handshakes on {terms}: {}.", seen.join("; "));
    }
    text
}
