//! What was asked of twinlock, what was measured, and whether that is enough.

use std::fmt::Write as _;

use crate::arguments::Scenario;
use crate::contender::Contender;
use crate::store::Results;

/// Which of two figures is the better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// One thing that was asked.
struct Bar {
    work: String,
    asked: String,
    measured: String,
    met: bool,
}

/// The table of every bar for which there are figures.
pub fn markdown(results: &[Results]) -> String {
    let mut bars = Vec::new();
    for results in results {
        match results.scenario {
            Scenario::Bulk => bulk(results, &mut bars),
            Scenario::Connections => {
                connections(results, &mut bars, "new connections, equal terms", 1.5, Some(0.65));
            }
            Scenario::Defaults => connections(results, &mut bars, "new connections, own defaults", 1.3, None),
            Scenario::Requests => requests(results, &mut bars),
            Scenario::Latency => latency(results, &mut bars),
            // Nothing was asked of it in figures.
            Scenario::Neighbour => {}
            Scenario::Idle => idle(results, &mut bars),
            Scenario::Sysbench => sysbench(results, &mut bars),
            Scenario::Rotation => rotation(results, &mut bars),
            Scenario::Scale => scale(results, &mut bars),
        }
    }
    let mut text = String::from("| work | asked | measured | met |\n|---|---|---|---|\n");
    for Bar { work, asked, measured, met } in bars {
        let _ = writeln!(text, "| {work} | {asked} | {measured} | {} |", if met { "yes" } else { "**no**" });
    }
    text
}

fn bulk(results: &Results, bars: &mut Vec<Bar>) {
    for case in ["1 up", "1 down", "16 up", "16 down"] {
        let work = format!("bulk, {case}, rate");
        bars.extend(against_best(results, &work, case, "gbit", Better::More, 1.2));
        let work = format!("bulk, {case}, CPU a GB");
        bars.extend(against_best(results, &work, case, "cpu s/GB", Better::Less, 0.8));
        let work = format!("bulk, {case}, rate without TLS");
        bars.extend(against(results, &work, case, "gbit", Better::More, 0.7, Contender::Plain));
    }
}

fn connections(results: &Results, bars: &mut Vec<Bar>, work: &str, rate: f64, cpu: Option<f64>) {
    bars.extend(against_best(results, &format!("{work}, rate"), "new", "rate", Better::More, rate));
    if let Some(cpu) = cpu {
        bars.extend(against_best(results, &format!("{work}, CPU"), "new", "cpu ms", Better::Less, cpu));
    }
}

fn requests(results: &Results, bars: &mut Vec<Bar>) {
    bars.extend(against_best(results, "requests, closed loop", "closed", "rate", Better::More, 1.2));
    let work = "requests, rate without TLS";
    bars.extend(against(results, work, "closed", "rate", Better::More, 0.88, Contender::Plain));
}

fn latency(results: &Results, bars: &mut Vec<Bar>) {
    for (figure, asked) in [("p50", 1.0), ("p99", 1.1), ("p99.9", 1.1)] {
        let work = format!("requests, open loop, {figure}");
        bars.extend(against_best(results, &work, "open", figure, Better::Less, asked));
    }
}

fn idle(results: &Results, bars: &mut Vec<Bar>) {
    for side in ["egress", "ingress"] {
        let asked = [("KiB", "KiB for an idle connection", 6.0), ("rest RSS MiB", "MiB at rest", 10.0)];
        for (figure, unit, most) in asked {
            let measured = results.median("idle", Contender::Twinlock, &format!("{side} {figure}"));
            bars.extend(measured.map(|measured| Bar {
                work: format!("memory, {side}"),
                asked: format!("at most {most} {unit}"),
                measured: format!("{measured:.1}"),
                met: measured <= most,
            }));
        }
    }
}

fn sysbench(results: &Results, bars: &mut Vec<Bar>) {
    bars.extend(against_best(results, "sysbench, CPU a query", "select", "cpu us", Better::Less, 0.8));
    bars.extend(against_best(results, "sysbench, rate", "select", "rate", Better::More, 1.0));
}

fn rotation(results: &Results, bars: &mut Vec<Bar>) {
    for load in ["paced", "new"] {
        let [still, rotating] = ["still", "rotating"].map(|how| format!("{load} {how}"));
        let failed: f64 = results.values(&rotating, Contender::Twinlock, "failed").iter().sum();
        bars.push(Bar {
            work: format!("rotation every second, {load}"),
            asked: "no failed connection".into(),
            measured: format!("{failed}"),
            met: failed == 0.0,
        });
        let p99 = results.ratio_of_cases(&rotating, &still, Contender::Twinlock, "p99");
        bars.extend(p99.map(|ratio| Bar {
            work: format!("rotation every second, {load}"),
            asked: "p99 at most 1.1× of that without".into(),
            measured: format!("{ratio:.2}×"),
            met: ratio <= 1.1,
        }));
    }
}

fn scale(results: &Results, bars: &mut Vec<Bar>) {
    let open = results.median("most bytes", Contender::Twinlock, "open").unwrap_or_default();
    for (work, figure) in [("bytes", "cpu s/GB"), ("requests", "cpu us"), ("connections", "cpu ms")] {
        let [most, few] = [format!("most {work}"), format!("10 {work}")];
        let ratio = results.ratio_of_cases(&most, &few, Contender::Twinlock, figure);
        bars.extend(ratio.map(|ratio| Bar {
            work: format!("CPU for {work} with {open} open"),
            asked: "at most 1.1× of that with 10".into(),
            measured: format!("{ratio:.2}×"),
            met: ratio <= 1.1,
        }));
    }
}

/// Twinlock against the rival that has the best figure.
fn against_best(
    results: &Results,
    work: &str,
    case: &str,
    figure: &str,
    better: Better,
    asked: f64,
) -> Option<Bar> {
    let rivals = Contender::ALL.into_iter().filter(|contender| contender.is_rival());
    let mut rivals: Vec<_> =
        rivals.filter_map(|rival| Some((results.median(case, rival, figure)?, rival))).collect();
    rivals.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (_, best) = if better == Better::More { rivals.last()? } else { rivals.first()? };
    against(results, work, case, figure, better, asked, *best)
}

fn against(
    results: &Results,
    work: &str,
    case: &str,
    figure: &str,
    better: Better,
    asked: f64,
    other: Contender,
) -> Option<Bar> {
    let ratio = results.ratio(case, Contender::Twinlock, other, figure)?;
    let (least, met) = match better {
        Better::More => ("at least", ratio >= asked),
        Better::Less => ("at most", ratio <= asked),
    };
    let who = other.title();
    Some(Bar {
        work: work.into(),
        asked: format!("{least} {asked}× of {}", if other.is_rival() { "the best rival" } else { who }),
        measured: format!("{ratio:.2}× of {who}"),
        met,
    })
}
