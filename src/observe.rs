//! Looks at what serves, for the admin server.

use std::sync::Arc;

use crate::admin::answer::Subject;
use crate::admin::state::{Handshakes, State};
use crate::serving::Serving;
use crate::telemetry::lines::Lines;

/// What the admin server asks about.
pub fn subject(serving: Arc<Serving>, events: Lines) -> Subject {
    Subject { state: Box::new(move || state(&serving, &events)) }
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
