//! Looks at what serves, for the admin server.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::admin::answer::{Order, Subject};
use crate::admin::state::{Handshakes, State};
use crate::certs;
use crate::clock;
use crate::serving::Serving;
use crate::telemetry::lines::Lines;

/// What the admin server asks about, and whom it tells.
pub fn subject(serving: Arc<Serving>, events: Lines, orders: mpsc::Sender<Order>) -> Subject {
    let of_certificates = serving.clone();
    Subject {
        state: Box::new(move || state(&serving, &events)),
        certificates: Box::new(move || {
            let sheets = certs::in_use(&of_certificates.store(), clock::wall());
            // What cannot be written as JSON is no sheet.
            serde_json::to_string_pretty(&sheets).unwrap_or_default()
        }),
        order: Box::new(move |order| orders.try_send(order).is_ok()),
    }
}

fn state(serving: &Serving, events: &Lines) -> State {
    let handshakes = serving.workers.handshakes().into_iter().map(|(kind, count)| Handshakes {
        side: kind.side,
        version: kind.version,
        group: kind.group,
        count,
    });
    State {
        draining: serving.is_stopped(),
        closed: serving.closed(),
        plan: serving.plan_state(),
        credentials: serving.store(),
        connections: serving.counts.clone(),
        handshakes: handshakes.collect(),
        lines_dropped: [("access", serving.log.dropped()), ("operational", events.dropped())],
    }
}
