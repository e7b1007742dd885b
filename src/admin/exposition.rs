//! Prometheus' text format, version 0.0.4: families of samples, each with its type and help.

use std::fmt::{Display, Write as _};

/// The media type of the format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, as long as the process lives.
    Counter,
    /// Both ways.
    Gauge,
}

/// A text in the making.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// The samples of one metric.
pub struct Family<'text> {
    text: &'text mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric; all its samples follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    /// The whole text.
    pub fn text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample. No two of a metric may have the same labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (index, (name, label)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"{}\"", escaped(label));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_line_whatever_a_label_says() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("one_seconds", Kind::Gauge, "When.");
        family.sample(&[("subject", "a\"b\\c\nd"), ("file", "tls.crt")], -1);
        exposition.family("two_total", Kind::Counter, "How often.").sample(&[], 1.5);
        let expected = concat!(
            "# HELP one_seconds When.\n# TYPE one_seconds gauge\n",
            r#"one_seconds{subject="a\"b\\c\nd",file="tls.crt"} -1"#,
            "\n# HELP two_total How often.\n# TYPE two_total counter\ntwo_total 1.5\n",
        );
        assert_eq!(exposition.text(), expected);
    }
}
