//! The results as a picture: one panel a figure, one bar a contender, readable on light and dark.

use std::fmt::Write as _;

use crate::arguments::Scenario;
use crate::contender::Contender;
use crate::store::Results;

/// What a panel shows.
struct Panel {
    title: &'static str,
    scenario: Scenario,
    case: &'static str,
    figure: &'static str,
    decimals: usize,
}

const PANELS: [Panel; 10] = [
    panel("Bulk up, 1 connection, Gbit/s (more is better)", Scenario::Bulk, "1 up", "gbit", 1),
    panel("Bulk down, 16 connections, Gbit/s (more is better)", Scenario::Bulk, "16 down", "gbit", 1),
    panel("Bulk up, CPU seconds a GB (less is better)", Scenario::Bulk, "1 up", "cpu s/GB", 2),
    panel("New connections/s, equal terms (more is better)", Scenario::Connections, "new", "rate", 0),
    panel("New connections/s, own defaults (more is better)", Scenario::Defaults, "new", "rate", 0),
    panel("Requests/s, closed loop (more is better)", Scenario::Requests, "closed", "rate", 0),
    panel("Request p99 at 4,000/s, µs (less is better)", Scenario::Latency, "open", "p99", 0),
    panel("KiB an idle connection, ingress (less is better)", Scenario::Idle, "idle", "ingress KiB", 1),
    panel("MiB at rest, ingress (less is better)", Scenario::Idle, "idle", "ingress rest RSS MiB", 1),
    panel("sysbench, CPU µs a query (less is better)", Scenario::Sysbench, "select", "cpu us", 1),
];

const fn panel(
    title: &'static str,
    scenario: Scenario,
    case: &'static str,
    figure: &'static str,
    decimals: usize,
) -> Panel {
    Panel { title, scenario, case, figure, decimals }
}

const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 430.0;
const HEAD: f64 = 26.0;
const ROW: f64 = 18.0;
const LABEL: f64 = 116.0;
/// The longest bar; the figure is written behind it.
const BAR: f64 = 230.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600}\
.o{fill:#9aa4af}.w{fill:#0969da}.p{fill:none;stroke:#9aa4af;stroke-dasharray:3 2}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#6e7681}.w{fill:#4493f8}.p{stroke:#8d96a0}}";

/// The picture; without panels if there are no figures for any.
pub fn svg(results: &[Results]) -> String {
    let shown: Vec<_> = PANELS.iter().filter_map(|panel| bars(panel, results)).collect();
    let rows = shown.iter().map(|(_, bars)| bars.len()).max().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "a few panels of a few rows")]
    let (height, lines) = (HEAD + ROW * rows as f64 + 14.0, shown.len().div_ceil(COLUMNS) as f64);
    #[allow(clippy::cast_precision_loss, reason = "two")]
    let (whole_width, whole_height) = (PANEL_WIDTH * COLUMNS as f64, height * lines);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole_width} {whole_height}\" \
         width=\"{whole_width}\" height=\"{whole_height}\" role=\"img\">\n\
         <title>twinlock and other proxies, measured</title>\n<style>{STYLE}</style>\n"
    );
    for (index, (panel, bars)) in shown.iter().enumerate() {
        #[allow(clippy::cast_precision_loss, reason = "a few panels")]
        let (left, top) = ((index % COLUMNS) as f64 * PANEL_WIDTH, (index / COLUMNS) as f64 * height);
        draw(&mut text, panel, bars, left, top);
    }
    text.push_str("</svg>\n");
    text
}

fn bars<'a>(panel: &'a Panel, results: &[Results]) -> Option<(&'a Panel, Vec<(Contender, f64)>)> {
    let results = results.iter().find(|results| results.scenario == panel.scenario)?;
    let figure = |contender| Some((contender, results.median(panel.case, contender, panel.figure)?));
    let bars: Vec<_> = Contender::ALL.into_iter().filter_map(figure).collect();
    (!bars.is_empty()).then_some((panel, bars))
}

fn draw(text: &mut String, panel: &Panel, bars: &[(Contender, f64)], left: f64, top: f64) {
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(text, "<text class=\"t\" x=\"{left}\" y=\"{}\">{}</text>", top + 15.0, panel.title);
    let mut line = top + HEAD;
    for (contender, value) in bars {
        let class = match contender {
            Contender::Twinlock => "w",
            Contender::Plain | Contender::Direct => "p",
            Contender::Envoy
            | Contender::Haproxy
            | Contender::Nginx
            | Contender::Stunnel
            | Contender::Hitch => "o",
        };
        let (start, width) = (left + LABEL, (value / most * BAR).max(1.0));
        let _ = writeln!(
            text,
            "<text x=\"{left}\" y=\"{base}\">{name}</text>\
             <rect class=\"{class}\" x=\"{start}\" y=\"{y}\" width=\"{width:.1}\" height=\"12\" rx=\"2\"/>\
             <text x=\"{end:.1}\" y=\"{base}\">{value:.decimals$}</text>",
            base = line + 11.0,
            name = contender.title(),
            y = line + 1.0,
            end = start + width + 5.0,
            decimals = panel.decimals,
        );
        line += ROW;
    }
}
