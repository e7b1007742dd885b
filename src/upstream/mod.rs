//! A name -> a connected socket.

pub mod dial;
pub mod resolve;
