//! Bytes both ways, until both directions have ended or one side is broken.
//!
//! One task drives both directions. Each reads into the worker's buffers only when there is something
//! to read and the other side has taken everything before it: that is the backpressure, and the reason
//! why a connection that is idle holds no buffer.

use std::pin::pin;
use std::task::{Context, Poll};

use tokio::task::yield_now;

use super::leg::{Broken, Leg, Received};
use super::live::Live;
use super::scratch::{self, Scratch};
use crate::plan::limits::OnTruncation;
use crate::plan::outcome::{Outcome, Side};

/// Reads of one direction in one turn; then the other direction and the other connections of the
/// worker have theirs.
const READS_PER_TURN: usize = 2;

/// Both hops of a connection that is set up.
pub struct Relay {
    downstream: Leg,
    upstream: Leg,
    /// The client has ended its direction; what is left is to tell the server.
    outward_ended: bool,
    /// The server has ended its direction.
    inward_ended: bool,
    /// Who ended its direction first.
    first: Option<Side>,
    truncated: Option<Side>,
    on_truncation: OnTruncation,
}

/// What stopped a direction's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// Nothing to read; the waker is registered.
    Waiting,
    /// Nowhere to write; the waker is registered, and nobody reads.
    Blocked,
    /// Its share of the turn is used up.
    Yielded,
    /// It has ended, and the receiver knows.
    Finished,
}

impl Relay {
    /// Begins to relay.
    pub fn new(downstream: Leg, upstream: Leg, on_truncation: OnTruncation) -> Self {
        Self {
            downstream,
            upstream,
            outward_ended: false,
            inward_ended: false,
            first: None,
            truncated: None,
            on_truncation,
        }
    }

    /// Moves what can be moved now; ready at the end, with what the end was.
    pub fn poll(&mut self, live: &Live, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(order) = live.ordered() {
            return Poll::Ready(order.outcome());
        }
        let look = live.told_to_look();
        if look && let Some(side) = self.broken_unheard() {
            return Poll::Ready(Outcome::Reset(side));
        }
        if live.told_to_rekey() {
            for side in [Side::Downstream, Side::Upstream] {
                let refreshed = self.split(side).1.refresh_keys();
                if let Err(broken) = refreshed {
                    return Poll::Ready(self.broken(side, broken, cx));
                }
            }
        }
        scratch::with(|scratch| self.turn(scratch, look, live, cx))
    }

    /// A side whose socket has failed without a reader to hear of it.
    fn broken_unheard(&self) -> Option<Side> {
        let legs = [(Side::Downstream, &self.downstream), (Side::Upstream, &self.upstream)];
        legs.into_iter().find(|(_, leg)| leg.is_broken()).map(|(side, _)| side)
    }

    fn turn(
        &mut self,
        scratch: &mut Scratch,
        look: bool,
        live: &Live,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome> {
        use Stopped::{Blocked, Finished, Yielded};
        let outward = self.pump(Side::Downstream, scratch, look, live, cx);
        let both =
            outward.and_then(|outward| Ok([outward, self.pump(Side::Upstream, scratch, look, live, cx)?]));
        let stopped = match both {
            Ok([Finished, Finished]) => return Poll::Ready(self.finished()),
            Ok(stopped) => stopped,
            Err(outcome) => return Poll::Ready(outcome),
        };
        if stopped.contains(&Yielded) {
            come_again(cx);
        }
        let more = self.downstream.may_hold_more() || self.upstream.may_hold_more();
        live.blind(more || stopped.contains(&Blocked) || stopped.contains(&Finished));
        Poll::Pending
    }

    /// Moves what one side has sent to the other.
    fn pump(
        &mut self,
        side: Side,
        scratch: &mut Scratch,
        mut look: bool,
        live: &Live,
        cx: &mut Context<'_>,
    ) -> Result<Stopped, Outcome> {
        let other = side.other();
        for _ in 0..READS_PER_TURN {
            let (ended, from, to) = self.split(side);
            match to.poll_flush(cx) {
                Poll::Pending => return Ok(Stopped::Blocked),
                Poll::Ready(Err(broken)) => return Err(self.broken(other, broken, cx)),
                Poll::Ready(Ok(())) if to.has_ended() => return Ok(Stopped::Finished),
                Poll::Ready(Ok(())) => {}
            }
            if *ended {
                if let Err(broken) = to.end() {
                    return Err(self.broken(other, broken, cx));
                }
                continue;
            }
            let received = match from.poll_receive(scratch, std::mem::take(&mut look), cx) {
                Poll::Pending => return Ok(Stopped::Waiting),
                Poll::Ready(Err(broken)) => return Err(self.broken(side, broken, cx)),
                Poll::Ready(Ok(received)) => received,
            };
            let plain = match received {
                Received::Input(read) => &scratch.input[..read],
                Received::Plain => scratch.plain.as_slice(),
                Received::Nothing => continue,
                Received::End | Received::Truncated => {
                    let truncated = matches!(received, Received::Truncated);
                    self.ended(side, truncated)?;
                    continue;
                }
            };
            live.count(side, plain.len());
            if let Err(broken) = to.send(plain, &mut scratch.sealed, cx) {
                return Err(self.broken(other, broken, cx));
            }
        }
        Ok(Stopped::Yielded)
    }

    /// Whether the side has ended its direction, its hop, and the hop to the other side.
    fn split(&mut self, side: Side) -> (&mut bool, &mut Leg, &mut Leg) {
        match side {
            Side::Downstream => (&mut self.outward_ended, &mut self.downstream, &mut self.upstream),
            Side::Upstream => (&mut self.inward_ended, &mut self.upstream, &mut self.downstream),
        }
    }

    fn ended(&mut self, side: Side, truncated: bool) -> Result<(), Outcome> {
        if truncated && self.on_truncation == OnTruncation::Reset {
            return Err(Outcome::Truncated(side));
        }
        if truncated {
            self.truncated.get_or_insert(side);
        }
        self.first.get_or_insert(side);
        *self.split(side).0 = true;

        Ok(())
    }

    /// Both directions have ended: nobody needs to be reset.
    fn finished(&mut self) -> Outcome {
        self.downstream.ended_cleanly();
        self.upstream.ended_cleanly();
        match self.truncated {
            Some(side) => Outcome::Truncated(side),
            None => Outcome::Completed { first: self.first.unwrap_or(Side::Downstream) },
        }
    }

    fn broken(&mut self, side: Side, broken: Broken, cx: &mut Context<'_>) -> Outcome {
        match broken {
            Broken::Io(_) => Outcome::Reset(side),
            Broken::Tls(fault) => {
                self.split(side).1.send_alert(cx);
                Outcome::Tls(side, fault)
            }
        }
    }
}

/// Asks for another turn behind everybody who is ready by then. Not by waking this task: the runtime looks
/// for sockets that have become ready only when nobody is left to run, or after dozens of such turns.
fn come_again(cx: &mut Context<'_>) {
    let asked = pin!(yield_now()).poll(cx);
    debug_assert!(asked.is_pending());
}
