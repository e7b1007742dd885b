//! One connection, accept to close.
//!
//! [`listener`] accepts and hands the socket to a [`worker`]; [`connection`] is the spine that carries
//! it to its end; [`relay`] moves its bytes between two [`leg`]s; [`record`] tells of it exactly once.

pub mod connection;
pub mod leg;
pub mod listener;
pub mod live;
pub mod record;
pub mod rekey;
pub mod relay;
pub mod scratch;
pub mod tally;
pub mod tenure;
pub mod warnings;
pub mod worker;
