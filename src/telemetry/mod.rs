//! What the gateway tells: one record per connection on standard output, and an operational log on
//! standard error.

pub mod access_log;
pub mod counts;
pub mod entry;
pub mod join;
pub mod lines;
pub mod logging;
