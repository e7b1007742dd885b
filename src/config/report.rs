//! All problems of a configuration at once: where, what was found, what was expected.

use std::fmt;

/// Everything that is wrong with a configuration; never empty when returned as an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flag.
    pub place: &'static str,
    /// What is wrong, in lower case, found and expected, the value last.
    pub message: String,
}

impl Report {
    /// Adds a problem.
    pub fn add(&mut self, place: &'static str, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into() });
    }

    /// Keeps a value, or notes why there is none.
    pub fn note<T>(&mut self, place: &'static str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(place, message)).ok()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    /// One line a problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", problem.place, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
