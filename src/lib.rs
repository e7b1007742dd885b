//! twinlock carries TCP between two sites over mutual TLS, without touching the application at either end.
//!
//! ```text
//! mysql client --plain--> [ egress :3306 ] ==mutual TLS, SNI, :13306==> [ ingress :13306 ] --plain--> mysqld :3306
//! ```
//!
//! # Architecture
//!
//! **Configuration compiles to an immutable plan; one straight function carries a connection through it;
//! everything that decides is pure.**
//!
//! The modules below are in reading order. To follow a connection, start at [`gateway`] (once a process, with
//! [`preparation`] and [`serving`] once a plan, and [`reload`] whenever files change), then
//! [`proxy::listener`] accepts, [`proxy::connection`] is the spine, and it calls in the order of its text:
//! [`plan::route`], [`tls::accept`], [`plan::authorize`], [`upstream::dial`], [`tls::originate`],
//! [`proxy::relay`]. Each leaf returns a value; none calls back, and siblings do not call each other.
//! **Direction is data**: egress, ingress and the roles of a mesh differ in the plan's [`plan::Entrance`] and in
//! [`plan::cluster::Cluster::originate`], never in code.
//!
//! | folder | what it is | may import |
//! |---|---|---|
//! | [`config`] | what the operator wrote -> [`plan::Plan`], or every problem at once | plan, credentials |
//! | [`plan`] | what may happen; pure: no sockets, files, clocks, logging | nothing |
//! | [`credentials`] | a directory -> checked key material, published whole or not at all | plan |
//! | [`tls`] | rustls, and nobody else touches it | plan, credentials |
//! | [`upstream`] | a name -> a connected socket | plan, telemetry |
//! | [`proxy`] | one connection, accept to close | plan, tls, upstream, telemetry |
//! | [`admin`] | HTTP: health, metrics, orders | plan, credentials, telemetry |
//! | [`telemetry`] | records of connections, the operational log | plan |
//!
//! `tests/tidy.rs` holds the code to this table.
//!
//! # TLS
//!
//! rustls shakes hands. Behind a handshake of TLS 1.3 it hands out the keys, and [`tls::session`] goes on with a record
//! layer of our own, without a copy, an allocation or a buffer a connection; TLS 1.2 stays with rustls. The AEADs
//! are aws-lc's, and rustls derives every key, those of a KeyUpdate among them.
//!
//! # Threads
//!
//! One thread for control (signals, DNS, drain), one that watches the configuration and the credentials, one
//! that writes records, one for the admin server ([`admin::server`], fed by [`observe`]), and N workers. A worker is one thread with one single-threaded runtime; a listener
//! hands each accepted socket to the worker with the fewest connections, where it stays. One task per
//! connection drives both directions, over buffers that belong to the worker and are lent for one poll
//! ([`proxy::scratch`]). Handshakes compute in turns, so that a flood of them does not stand before the
//! connections that are established ([`tls::handshake`]). What workers share of an upstream (its connections,
//! whose turn it is, which endpoint fails) is kept by role and name, so that it outlives a plan
//! ([`upstream::upstreams`]).
//! The thread that watches compiles a new plan, makes it possible and lets the listeners follow it; and it judges,
//! whenever a plan or a credential has changed, whether the peers of open connections would still be let in
//! ([`tls::standing`]). Sending them away ([`proxy::tenure`]) and all other timing of connections is done at one tick
//! a worker.
//!
//! # Invariants
//!
//! 1. Nothing that was asked to be encrypted ever leaves in plaintext. A missing credential closes connections.
//! 2. A server is verified by chain and name, a client by chain and, where names are listed, by name. No check is
//!    skipped for a resumed session: sessions are not resumed. Only arithmetic is remembered: that a CA has signed
//!    a certificate is computed once a thread, and everything that can change is looked at each time.
//! 3. No upstream is dialled before the peer is authorized: [`upstream::dial::dial`] consumes a
//!    [`plan::authorize::Permit`], which only [`plan::authorize::authorize`] can make.
//! 4. No byte is awaited from a plaintext client before the upstream is dialled: MySQL's server speaks first.
//! 5. Credentials and plans are published whole or not at all; the last good generation stays, and the reason is
//!    told. A connection keeps the plan it began with, unless that plan's successor would not let its peers in. A
//!    socket that both plans have is never closed.
//! 6. Every connection ends in exactly one record. A reset stays a reset; a connection that did not end cleanly on
//!    one side is reset on the other ([`proxy::leg::Socket`] resets unless told that all is well).
//! 7. Every wait has a deadline, every queue and buffer a bound, every count a limit ([`plan::limits`]).
//! 8. What a stranger can cause is never logged above INFO ([`plan::outcome`]). A log whose reader is slow or gone
//!    neither blocks nor ends the gateway.
//! 9. An idle connection holds no buffer, and a certificate that many connections show is kept once
//!    ([`tls::presented`]).
//! 10. `plan` reads no clock, no file, no socket.
//!
//! # Glossary
//!
//! *Listener*: a socket that accepts. *Route*: where a connection goes and who may take it there. *Cluster*: a
//! named upstream. *Credential*: key pair and CA under a name. *Generation*: one published version of a credential
//! or a plan. *Standing*: what a peer has shown, and whether that would still do.
//! *Identity*: what a verified certificate says its holder is. *Hop*: one leg of the path, TLS or plaintext.
//! *Downstream*: towards the client; *upstream*: towards the server. *Drain*: let open connections end, admit none.
//! *Permit*: proof of authorization. *Outcome*: how a connection ended. *Record*: what is written of it.

#![cfg_attr(not(test), warn(clippy::expect_used))]

pub mod command;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod preparation;
pub mod serving;
pub mod orders;
pub mod reload;
pub mod proxy;
pub mod plan;
pub mod tls;
pub mod upstream;
pub mod credentials;
pub mod admin;
pub mod observe;
pub mod telemetry;
pub mod certs;
pub mod audit;
pub mod explain;
pub mod question;
pub mod probe;
pub mod clock;
pub mod dev_certs;
