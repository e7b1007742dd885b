//! Results between runs: one JSON file a scenario, so that a full comparison can be made in portions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::arguments::Scenario;
use crate::contender::Contender;
use crate::machine::Subject;

/// What one scenario measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    pub scenario: Scenario,
    /// What was measured, and on what.
    pub subject: Subject,
    /// When, RFC 3339.
    pub date: String,
    /// What each agreed on in its first two handshakes.
    pub seen: Vec<(Contender, String)>,
    pub samples: Vec<Sample>,
    pub failures: Vec<Failed>,
}

/// One contender in one round of one case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    pub case: String,
    pub contender: Contender,
    pub round: usize,
    pub values: Values,
}

/// Figures by name.
pub type Values = BTreeMap<String, f64>;

/// A contender that did not do the job, and so has no figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    pub case: String,
    pub contender: Contender,
    pub why: String,
}

/// The folder of results.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    pub fn save(&self, results: &Results) -> Result<(), Failure> {
        let path = self.folder.join(format!("{}.json", results.scenario.name()));
        Ok(fs::write(path, serde_json::to_string_pretty(results)?)?)
    }

    /// Everything that was measured with the same program on the same machine.
    pub fn of(&self, subject: &Subject) -> Vec<Results> {
        let mut found = Vec::new();
        for scenario in Scenario::ALL {
            let path = self.folder.join(format!("{}.json", scenario.name()));
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let Ok(results) = serde_json::from_str::<Results>(&text) else {
                eprintln!("ignored, it is of another version: {}", path.display());
                continue;
            };
            if results.subject.is_same(subject) {
                found.push(results);
            } else {
                eprintln!("ignored, it is of another program or machine: {}", path.display());
            }
        }
        found
    }
}

impl Results {
    /// The values of a figure over the rounds, sorted.
    pub fn values(&self, case: &str, contender: Contender, name: &str) -> Vec<f64> {
        let samples = self.samples.iter();
        let samples = samples.filter(|sample| sample.case == case && sample.contender == contender);
        let mut values: Vec<_> = samples.filter_map(|sample| sample.values.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The median over the rounds; `None` without any.
    pub fn median(&self, case: &str, contender: Contender, name: &str) -> Option<f64> {
        median(&self.values(case, contender, name))
    }

    /// The median over the rounds of the ratio of one contender to another in the same round.
    pub fn ratio(&self, case: &str, of: Contender, to: Contender, name: &str) -> Option<f64> {
        self.median_ratio((case, of), (case, to), name)
    }

    /// The same of two cases of one contender.
    pub fn ratio_of_cases(&self, of: &str, to: &str, contender: Contender, name: &str) -> Option<f64> {
        self.median_ratio((of, contender), (to, contender), name)
    }

    fn median_ratio(&self, of: (&str, Contender), to: (&str, Contender), name: &str) -> Option<f64> {
        let value = |(case, contender): (&str, Contender), round| {
            let mut samples = self.samples.iter();
            let sample = samples.find(|sample| {
                sample.case == case && sample.contender == contender && sample.round == round
            })?;
            sample.values.get(name).copied()
        };
        let last = self.samples.iter().map(|sample| sample.round).max()?;
        let mut ratios: Vec<_> = (0..=last)
            .filter_map(|round| Some(value(of, round)? / value(to, round)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_by(f64::total_cmp);
        median(&ratios)
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}
