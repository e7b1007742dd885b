//! What an operator may ask the process over HTTP: whether it is well, and its metrics.
//!
//! [`server`] bounds connections and their time on a thread of its own; [`guard`] says who may ask;
//! [`answer`] maps a request to a response; what it tells of is a [`state::State`], taken anew for each request.

pub mod answer;
pub mod connections;
pub mod exposition;
pub mod guard;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod server;
pub mod state;
