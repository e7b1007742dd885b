//! Both sides of a TLS session, fed whatever a peer or a stranger on the wire can send, split anyhow,
//! before, during and after the handshake.
//!
//! An input is a script: a mode, then one operation after the other (see [`Scene::step`]). What must hold:
//! nothing panics; plaintext that arrives is a prefix of what was sent, and all of it if nobody meddled; what
//! the session keeps, says and delivers is bounded by what it was fed.
#![no_main]

mod forger;
mod pair;
mod script;

use libfuzzer_sys::fuzz_target;

use forger::Forger;
use pair::{Mode, Ours, Theirs};
use script::Script;

/// Operations of one script; more of them find nothing that fewer do not.
const STEPS_MAX: usize = 64;
/// The only content types there are (RFC 8446 section 5.1), and one that is none.
const CONTENT_TYPES: [u8; 5] = [20, 21, 22, 23, 24];

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mode = Mode::from(script.byte());
    if mode.stranger {
        stranger(mode, &mut script);
    } else {
        let mut scene = Scene::new(mode);
        for _ in 0..STEPS_MAX {
            if script.is_over() {
                break;
            }
            scene.step(&mut script);
        }
        scene.end();
    }
});

/// A peer that is no TLS library: bytes, in pieces.
fn stranger(mode: Mode, script: &mut Script<'_>) {
    let mut ours = Ours::new(mode);
    while !script.is_over() && ours.is_alive() {
        let length = script.length();
        ours.receive(script.bytes(length));
    }
    assert!(ours.received().is_empty(), "a stranger was believed");
}

/// A genuine peer, and somebody between it and us.
struct Scene {
    ours: Ours,
    theirs: Theirs,
    forger: Option<Forger>,
    /// What the peer, or who has its keys, has sent as application data.
    sent: Vec<u8>,
    /// Whether somebody meddled: what was sent may then be refused, but nothing else may arrive.
    meddled: bool,
}

impl Scene {
    fn new(mode: Mode) -> Self {
        let (ours, theirs) = pair::pair(mode);
        Self { ours, theirs, forger: None, sent: Vec::new(), meddled: false }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.deliver(script.length()),
            1 => self.theirs.receive(&mut self.ours.wire, script.length()),
            2 => self.ours.send(script.length()),
            3 => self.send(script.length()),
            4 => self.theirs.renew_keys(),
            5 => self.carry_all(),
            6 => self.theirs.close(),
            7 => self.ours.close(),
            // The rest meddles.
            8 => self.meddle(|wire| {
                let (at, mask) = (script.length(), script.byte());
                if let Some(byte) = wire.get_mut(at) {
                    *byte ^= mask;
                }
            }),
            9 => self.meddle(|wire| {
                let range = script.range(wire.len());
                wire.drain(range);
            }),
            10 => self.meddle(|wire| {
                let range = script.range(wire.len());
                let again = wire[range.clone()].to_vec();
                wire.splice(range.end..range.end, again);
            }),
            11 => self.meddle(|wire| {
                let at = script.length().min(wire.len());
                let length = usize::from(script.byte());
                wire.splice(at..at, script.bytes(length).iter().copied());
            }),
            12 => {
                let (at, mask) = (script.length(), script.byte());
                self.meddled = true;
                forger::alter_flight(&mut self.theirs, at, mask);
            }
            _ => self.forge(script),
        }
    }

    fn deliver(&mut self, length: usize) {
        let length = length.min(self.theirs.wire.len());
        let piece: Vec<u8> = self.theirs.wire.drain(..length).collect();
        self.ours.receive(&piece);
        assert!(self.sent.starts_with(self.ours.received()), "other plaintext than was sent");
    }

    fn send(&mut self, length: usize) {
        if self.forger.is_none() {
            self.sent.extend(self.theirs.send(length));
        }
    }

    fn carry_all(&mut self) {
        while !self.theirs.wire.is_empty() || !self.ours.wire.is_empty() {
            self.deliver(usize::MAX);
            self.theirs.receive(&mut self.ours.wire, usize::MAX);
        }
    }

    fn meddle(&mut self, how: impl FnOnce(&mut Vec<u8>)) {
        self.meddled = true;
        how(&mut self.theirs.wire);
    }

    /// A record that is sealed with the peer's keys, and that no library would send.
    fn forge(&mut self, script: &mut Script<'_>) {
        if self.forger.is_none() {
            if self.meddled || self.theirs.has_closed() {
                return;
            }
            self.carry_all();
            self.forger = self.theirs.take_keys();
        }
        let Some(forger) = &mut self.forger else { return };
        self.meddled = true;
        let choice = usize::from(script.byte());
        let content_type = CONTENT_TYPES[choice % CONTENT_TYPES.len()];
        let length = script.length();
        let payload = script.bytes(length);
        if content_type == forger::APPLICATION_DATA {
            self.sent.extend_from_slice(payload);
        }
        self.theirs.wire.extend(forger.record(content_type, payload));
        if choice >= 128 {
            forger.renew();
        }
    }

    fn end(mut self) {
        self.carry_all();
        if self.meddled {
            return;
        }
        assert_eq!(self.ours.fault, None, "a genuine peer was refused");
        assert!(!self.theirs.failed, "a genuine peer refused us");
        assert!(
            self.ours.received() == self.sent,
            "{} of {} bytes",
            self.ours.received().len(),
            self.sent.len()
        );
        assert!(self.theirs.received == self.ours.sent, "the peer has other plaintext than we sent");
        assert_eq!(self.ours.peer_closed(), self.theirs.has_closed());
        assert_eq!(self.ours.kept(), 0, "whole records are kept back");
    }
}
