//! Notices that files have changed: inotify for speed, a poll for certainty.
//!
//! What an event says is never trusted. An event of an entry that concerns us only means "look now", and
//! whoever looks compares contents, so a lost event, an overflow or a filesystem without events costs time
//! and nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::levels::Levels;
use crate::clock;

/// One update of a mounted secret raises several events; this long after the first, one look is taken.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// What is held back is looked at this often, and an event is never waited for longer.
const SOON: Duration = Duration::from_secs(1);

/// A look that an event led to is followed by one more: a directory that is deleted and made again can
/// lose its watch to the tidying up of the old one, and with it the events that come next.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Asks a running watch to look now. Dropping the last one ends the watch.
#[derive(Clone)]
pub struct Nudge(SyncSender<Wake>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Event,
    Now,
    Stop,
}

impl Nudge {
    /// Look now, whatever there is to see.
    pub fn look(&self) {
        self.send(Wake::Now);
    }

    /// End the watch. Waits for room behind the events of a directory that never rests: this one order
    /// must not be lost. An error means that the watch has ended already.
    pub fn stop(&self) {
        let _ = self.0.send(Wake::Stop);
    }

    fn send(&self, wake: Wake) {
        match self.0.try_send(wake) {
            // Full means that a look is due anyway; disconnected, that the watch has ended.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Why a look is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is time, or something seems to have changed.
    Due,
    /// Somebody wants it.
    Asked,
}

/// Watches from a thread of its own what `levels` says where to look for. `look` returns whether something is held
/// back, and so wants another look soon.
pub fn start(
    poll_interval: Duration,
    levels: impl Fn() -> Levels + Send + 'static,
    look: impl FnMut(SystemTime, Reason) -> bool + Send + 'static,
) -> std::io::Result<(Nudge, JoinHandle<()>)> {
    let (sender, wakes) = sync_channel(64);
    let nudge = Nudge(sender);
    let events = nudge.clone();
    let thread = std::thread::Builder::new().name("watch".into()).spawn(move || {
        run(&wakes, poll_interval, Events::start(events), &levels, look);
    })?;
    Ok((nudge, thread))
}

fn run(
    wakes: &Receiver<Wake>,
    poll_interval: Duration,
    mut events: Option<Events>,
    levels: &impl Fn() -> Levels,
    mut look: impl FnMut(SystemTime, Reason) -> bool,
) {
    // Watched first and looked at then: what changes behind the look raises an event.
    let mut look = |reason| {
        if let Some(events) = &mut events {
            events.follow(levels());
        }
        look(clock::wall(), reason)
    };
    let mut held = look(Reason::Due);
    let mut patience = poll_interval;
    loop {
        if held {
            patience = patience.min(SOON);
        }
        let wake = wakes.recv_timeout(patience);
        patience = poll_interval;
        let wake = match wake {
            Ok(Wake::Event) => {
                patience = poll_interval.min(SECOND_LOOK);
                settle(wakes)
            }
            wake => wake,
        };
        held = match wake {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Wake::Now) => look(Reason::Asked),
            Ok(Wake::Event) | Err(RecvTimeoutError::Timeout) => look(Reason::Due),
        };
    }
}

/// Lets the events of one update arrive; an order given by a person is not kept waiting.
fn settle(wakes: &Receiver<Wake>) -> Result<Wake, RecvTimeoutError> {
    let deadline = clock::now() + DEBOUNCE;
    while let Some(left) = deadline.checked_duration_since(clock::now()) {
        match wakes.recv_timeout(left) {
            Ok(Wake::Event) => {}
            ended => return ended,
        }
    }
    Ok(Wake::Event)
}

/// What the kernel tells of the levels that lead to the files.
struct Events {
    watcher: RecommendedWatcher,
    /// What concerns us: the handler asks it of every event.
    levels: Arc<ArcSwap<Levels>>,
    watched: BTreeSet<PathBuf>,
}

impl Events {
    fn start(nudge: Nudge) -> Option<Self> {
        let levels = Arc::new(ArcSwap::from_pointee(Levels::default()));
        let known = levels.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            if matters(&event, &known.load()) {
                nudge.send(Wake::Event);
            }
        };
        match notify::recommended_watcher(handler) {
            Ok(watcher) => Some(Self { watcher, levels, watched: BTreeSet::new() }),
            Err(error) => {
                tracing::warn!("no inotify, changes are found by polling only: {error}");
                None
            }
        }
    }

    /// Watches these levels, and none that is not one any more. Done again before
    /// every look, because a directory that was replaced is another one; to watch what is watched
    /// already changes nothing.
    fn follow(&mut self, levels: Levels) {
        let wanted: BTreeSet<_> = levels.directories().map(PathBuf::from).collect();
        // Known first: an event may come before the call returns.
        self.levels.store(Arc::new(levels));
        for directory in &wanted {
            if let Err(error) = self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::debug!(path = %directory.display(), "not watched, found by polling only: {error}");
            }
        }
        for directory in self.watched.difference(&wanted) {
            // One that is gone took its watch along.
            let _ = self.watcher.unwatch(directory);
        }
        self.watched = wanted;
    }
}

/// Whether an event is a reason to look.
fn matters(event: &notify::Result<notify::Event>, levels: &Levels) -> bool {
    match event {
        // Our own reads raise access events: to act on them would be to look for ever.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
        Ok(event) => {
            event.need_rescan()
                || event.paths.is_empty()
                || event.paths.iter().any(|path| levels.concern(path))
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use notify::Event;
    use notify::event::{AccessKind, AccessMode, CreateKind, Flag, ModifyKind};

    use super::*;

    #[test]
    fn the_order_to_stop_is_not_lost_behind_the_events_of_a_directory_that_never_rests() {
        let (sender, wakes) = sync_channel(1);
        let nudge = Nudge(sender);
        nudge.send(Wake::Event);
        nudge.send(Wake::Event);
        let stopping = std::thread::spawn(move || nudge.stop());
        let heard: Vec<Wake> = wakes.iter().collect();
        assert_eq!(heard, [Wake::Event, Wake::Stop]);
        stopping.join().unwrap();
    }

    #[test]
    fn a_change_of_what_is_watched_and_the_loss_of_events_are_reasons_to_look_and_our_own_reads_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().canonicalize().unwrap().join("set");
        std::fs::create_dir(&directory).unwrap();
        let levels = Levels::of(&directory);
        let check = |kind: EventKind, path: Option<&Path>, expected: bool| {
            let event = Event { paths: path.map(Path::to_owned).into_iter().collect(), ..Event::new(kind) };
            assert_eq!(matters(&Ok(event), &levels), expected, "{kind:?} of {path:?}");
        };
        let file = directory.join("tls.crt");
        check(EventKind::Create(CreateKind::File), Some(&file), true);
        check(EventKind::Modify(ModifyKind::Any), Some(&file), true);
        check(EventKind::Access(AccessKind::Read), Some(&file), false);
        check(EventKind::Access(AccessKind::Open(AccessMode::Read)), Some(&directory), false);
        check(EventKind::Modify(ModifyKind::Any), Some(&directory.with_file_name("other")), false);
        check(EventKind::Any, None, true);
        // The kernel's queue was full.
        let lost = Event::new(EventKind::Other).add_path("/".into()).set_flag(Flag::Rescan);
        assert!(matters(&Ok(lost), &levels));
        assert!(matters(&Err(notify::Error::generic("the watch is gone")), &levels));
    }
}
