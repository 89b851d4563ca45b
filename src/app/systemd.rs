//! What the service manager hears of the daemon: that it works, how it is, and that its loop turns.
//!
//! The loop itself feeds the watchdog, in a turn in which the engine has just been asked for what is
//! to be done: a loop that is stuck, and an engine that does not return, stop it. A quiet daemon
//! turns for this at half the watchdog's time, and for nothing else.

use std::time::{Duration, Instant};

use crate::domain::{CardView, CmView, OutboxView, PcscdView, ReaderView, StatusView};
use crate::telemetry::{Notifier, NotifyState};

/// How soon after one look at the daemon's state the next may follow.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The service manager, and what it was told.
#[derive(Debug)]
pub(super) struct ServiceNotifier {
    notifier: Notifier,
    last_status: String,
    /// When the state was last looked at.
    checked_at: Option<Instant>,
    /// When it is to be looked at again, because something may have changed.
    next_check: Option<Instant>,
    /// When the watchdog is fed next.
    next_watchdog: Option<Instant>,
}

impl ServiceNotifier {
    pub(super) const fn new(notifier: Notifier) -> Self {
        Self {
            notifier,
            last_status: String::new(),
            checked_at: None,
            next_check: None,
            next_watchdog: None,
        }
    }

    /// The daemon works.
    pub(super) fn ready(&mut self, now: Instant) {
        self.notifier.notify(&[NotifyState::Ready, NotifyState::Watchdog]);
        self.next_watchdog = self.next_feed(now);
    }

    pub(super) fn reloading(&self) {
        self.notifier.notify(&[NotifyState::Reloading]);
    }

    /// The configuration was read again, for better or worse.
    pub(super) fn reloaded(&self) {
        self.notifier.notify(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        self.notifier.notify(&[NotifyState::Stopping]);
    }

    /// When the loop has to turn for this, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.next_check, self.next_watchdog].into_iter().flatten().min()
    }

    /// The loop has turned: something may have changed, or was due here.
    pub(super) fn on_loop_turn(&mut self, now: Instant, state: impl FnOnce() -> StatusView) {
        if !self.notifier.is_connected() {
            return;
        }
        let mut news = Vec::new();
        let words = self.look(now, state);
        news.extend(words.as_deref().map(NotifyState::Status));
        if self.next_watchdog.is_some_and(|feed| feed <= now) {
            news.push(NotifyState::Watchdog);
            self.next_watchdog = self.next_feed(now);
        }
        if !news.is_empty() {
            self.notifier.notify(&news);
        }
    }

    /// The state in words, if they are others than were told; too soon after the last look, it is
    /// looked at later.
    fn look(&mut self, now: Instant, state: impl FnOnce() -> StatusView) -> Option<String> {
        let soonest = self.checked_at.map_or(now, |looked| looked + STATUS_INTERVAL);
        if soonest > now {
            self.next_check = Some(soonest);
            return None;
        }
        (self.checked_at, self.next_check) = (Some(now), None);
        let words = status_text(&state());
        let changed = words != self.last_status;
        self.last_status.clone_from(&words);
        changed.then_some(words)
    }

    fn next_feed(&self, now: Instant) -> Option<Instant> {
        self.notifier.watchdog().map(|within| now + within / 2)
    }
}

/// The state on one line: "2 readers, 1 card, CM available, 3 entries waiting".
fn status_text(state: &StatusView) -> String {
    let mut parts = match &state.pcscd {
        PcscdView::Connected { .. } => {
            let card = |view: &&ReaderView| !matches!(view.card, CardView::Empty);
            let cards = state.readers.iter().filter(card).count();
            vec![count(state.readers.len(), "reader", "readers"), count(cards, "card", "cards")]
        }
        PcscdView::Connecting => vec!["connecting to pcscd".to_owned()],
        PcscdView::Unavailable { .. } => vec!["pcscd unavailable".to_owned()],
    };
    parts.push(match &state.cm {
        CmView::Unknown => "CM not contacted".to_owned(),
        CmView::Available { .. } => "CM available".to_owned(),
        CmView::Unavailable { reason, .. } => format!("CM unavailable ({reason})"),
    });
    let OutboxView { waiting, parked, write_error: trouble, .. } = &state.outbox;
    parts.push(format!("{} waiting", count(*waiting, "entry", "entries")));
    if *parked > 0 {
        parts.push(format!("{parked} parked"));
    }
    if trouble.is_some() {
        parts.push("outbox error".to_owned());
    }
    parts.join(", ")
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::domain::{CredentialsView, ReaderAttributes, ReaderName, ReaderRules};

    fn since() -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn reader(name: &str, card: CardView) -> ReaderView {
        let reader = ReaderName::from(name);
        let attributes = ReaderAttributes::default();
        let place = ReaderRules::default().settings_for(&reader, &attributes);
        ReaderView { reader, settings: place, attributes, since: since(), card }
    }

    fn state(pcscd: PcscdView, cm: CmView, outbox: OutboxView) -> StatusView {
        StatusView {
            station: "desk-3".to_owned(),
            version: "1".to_owned(),
            started_at: since(),
            pcscd,
            readers: vec![reader("A", CardView::Empty), reader("B", CardView::Mute)],
            cm,
            credentials: CredentialsView::default(),
            outbox,
            recent_audit: vec![],
            data_loss: None,
        }
    }

    fn waiting(waiting: usize) -> OutboxView {
        OutboxView { waiting, parked: 0, oldest_waiting_at: None, write_error: None }
    }

    #[test]
    fn the_state_is_told_in_words() {
        assert_eq!(status_text(&up(3)), "2 readers, 1 card, CM available, 3 entries waiting");
        let down = state(
            PcscdView::Unavailable { since: since(), reason: String::new() },
            CmView::Unavailable {
                since: since(),
                reason: "timeout".to_owned(),
                detail: String::new(),
                remedy: String::new(),
                next_try_ms: 0,
            },
            OutboxView { parked: 2, write_error: Some("full".to_owned()), ..waiting(1) },
        );
        let said =
            "pcscd unavailable, CM unavailable (timeout), 1 entry waiting, 2 parked, outbox error";
        assert_eq!(status_text(&down), said);
    }

    /// A service under a manager that wants to hear of life every three minutes.
    fn managed() -> (ServiceNotifier, UnixDatagram, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(path.as_os_str(), Some(Duration::from_mins(3))).unwrap();
        (ServiceNotifier::new(notifier), manager, dir)
    }

    fn told(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let mut told = Vec::new();
        while let Ok(length) = manager.recv(&mut buffer) {
            told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        told
    }

    fn up(entries: usize) -> StatusView {
        let since = since();
        state(PcscdView::Connected { since }, CmView::Available { since }, waiting(entries))
    }

    #[test]
    fn a_quiet_daemon_wakes_for_its_watchdog_alone_and_says_nothing_new() {
        let (mut service, manager, _dir) = managed();
        let began = Instant::now();
        service.ready(began);
        service.on_loop_turn(began, || up(0));
        assert_eq!(told(&manager).len(), 2, "ready, and the state");
        for half in 1..4 {
            let due = service.due().unwrap();
            assert_eq!(due.duration_since(began), half * Duration::from_secs(90));
            service.on_loop_turn(due, || up(0));
            assert_eq!(told(&manager), ["WATCHDOG=1"]);
        }
    }

    #[test]
    fn a_busy_daemon_tells_its_state_once_a_second_and_the_last_one_for_sure() {
        let (mut service, manager, _dir) = managed();
        let began = Instant::now();
        service.ready(began);
        for turn in 0..250_u16 {
            let now = began + u32::from(turn) * Duration::from_millis(10);
            service.on_loop_turn(now, || up(turn.into()));
        }
        let statuses = told(&manager).iter().filter(|it| it.starts_with("STATUS=")).count();
        assert_eq!(statuses, 3, "at 0, 1 and 2 s");
        let due = service.due().unwrap();
        assert_eq!(due.duration_since(began), Duration::from_secs(3));
        service.on_loop_turn(due, || up(250));
        assert!(told(&manager)[0].ends_with("250 entries waiting"));
        assert!(service.due().unwrap() > due + STATUS_INTERVAL, "and then there is rest");
    }

    #[test]
    fn a_daemon_that_nobody_listens_to_never_turns_for_this() {
        let mut service = ServiceNotifier::new(Notifier::default());
        let now = Instant::now();
        service.ready(now);
        service.on_loop_turn(now, || unreachable!("nobody listens"));
        assert_eq!(service.due(), None);
    }
}
