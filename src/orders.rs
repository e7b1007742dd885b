//! What the process is told while it runs, by signals and by the admin server.

use tokio::sync::mpsc;

use crate::admin::answer::Order;
use crate::credentials::watch::Nudge;
use crate::gateway::Signal;

/// Orders that wait to be obeyed; the admin server refuses more.
const WAITING_MAX: usize = 8;

/// What the process is told.
pub struct Orders {
    signals: mpsc::Receiver<Signal>,
    admin: mpsc::Receiver<Order>,
    /// Signals to stop so far.
    stops: usize,
}

impl Orders {
    /// Hears signals, and whoever has the sender.
    pub fn new(signals: mpsc::Receiver<Signal>) -> (Self, mpsc::Sender<Order>) {
        let (sender, admin) = mpsc::channel(WAITING_MAX);
        (Self { signals, admin, stops: 0 }, sender)
    }

    /// Obeys until told to stop or to drain.
    pub async fn until_stop(&mut self, nudge: &Nudge) {
        loop {
            tokio::select! {
                signal = self.signals.recv() => match signal {
                    Some(Signal::Reload) => nudge.look(),
                    // Nobody is left who could stop it later.
                    Some(Signal::Stop) | None => {
                        self.stops += 1;
                        return;
                    }
                },
                Some(order) = self.admin.recv() => {
                    tracing::info!(order = order.label(), "told by the admin server");
                    match order {
                        Order::Reload => nudge.look(),
                        Order::Drain => return,
                    }
                }
            }
        }
    }

    /// Obeys until a second signal to stop. An order to drain is none, however often it is given: whoever runs the
    /// process may give it first and send the signal behind it.
    pub async fn until_second_stop(&mut self, nudge: &Nudge) {
        while self.stops < 2 {
            self.until_stop(nudge).await;
        }
    }
}
