//! A name -> a connected socket.

pub mod answers;
pub mod asker;
pub mod balance;
pub mod dial;
pub mod health;
pub mod proxy_protocol;
pub mod resolve;
pub mod roster;
pub mod upstreams;
