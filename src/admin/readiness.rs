//! Whether connections can be carried, judged by what is known: nothing is dialled for it.

use super::state::State;

/// What is missing before connections can be carried; empty when nothing is.
pub fn missing(state: &State) -> Vec<String> {
    let mut missing = Vec::new();
    if state.draining {
        missing.push("draining: no connections are accepted any more".to_owned());
    }
    missing.extend(state.closed.iter().map(|address| format!("listener not open: {address}")));
    for slot in state.credentials.slots().filter(|slot| slot.current().is_none()) {
        let why = slot.status().refusal.unwrap_or_else(|| "not looked at yet".to_owned());
        missing.push(format!("no usable credential {}: {why}", slot.source().name));
    }
    missing
}
