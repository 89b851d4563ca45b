//! What systemd is notified of: readiness, reloads, the status text, and the watchdog.
//!
//! The loop itself feeds the watchdog, in a turn that has just polled the engine: a blocked loop,
//! or an engine that does not return, stops it. An idle daemon wakes up for this at half the
//! watchdog's time, and for nothing else.

use std::time::{Duration, Instant};

use crate::domain::{CardView, CmView, OutboxView, PcscdView, ReaderView, StatusView};
use crate::telemetry::{Notifier, NotifyState};

/// The shortest time between two status texts.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct ServiceNotifier {
    notifier: Notifier,
    last_status: String,
    checked_at: Option<Instant>,
    /// When the state is to be checked again, because it may have changed.
    next_check: Option<Instant>,
    next_watchdog: Option<Instant>,
}

impl ServiceNotifier {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self { notifier, ..Self::default() }
    }

    pub(super) fn ready(&mut self, now: Instant) {
        self.notifier.notify(&[NotifyState::Ready, NotifyState::Watchdog]);
        self.next_watchdog = self.watchdog_after(now);
    }

    pub(super) fn reloading(&self) {
        self.notifier.notify(&[NotifyState::Reloading]);
    }

    /// The reload succeeded or failed.
    pub(super) fn reloaded(&self) {
        self.notifier.notify(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        self.notifier.notify(&[NotifyState::Stopping]);
    }

    /// When the loop has to wake up for this.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.next_check, self.next_watchdog].into_iter().flatten().min()
    }

    pub(super) fn on_loop_turn(&mut self, now: Instant, state: impl FnOnce() -> StatusView) {
        if !self.notifier.is_connected() {
            return;
        }
        let changed = self.changed_status(now, state);
        let mut states: Vec<_> = changed.as_deref().map(NotifyState::Status).into_iter().collect();
        if self.next_watchdog.is_some_and(|due| due <= now) {
            states.push(NotifyState::Watchdog);
            self.next_watchdog = self.watchdog_after(now);
        }
        if !states.is_empty() {
            self.notifier.notify(&states);
        }
    }

    /// The status text, if it changed; it is checked later if the last check was too recent.
    fn changed_status(
        &mut self,
        now: Instant,
        state: impl FnOnce() -> StatusView,
    ) -> Option<String> {
        let earliest = self.checked_at.map_or(now, |at| at + STATUS_INTERVAL);
        if earliest > now {
            self.next_check = Some(earliest);
            return None;
        }
        (self.checked_at, self.next_check) = (Some(now), None);
        let text = status_text(&state());
        let changed = text != self.last_status;
        self.last_status.clone_from(&text);
        changed.then_some(text)
    }

    fn watchdog_after(&self, now: Instant) -> Option<Instant> {
        self.notifier.watchdog().map(|timeout| now + timeout / 2)
    }
}

/// The state on one line: "2 readers, 1 card, CM available, 3 entries waiting".
fn status_text(state: &StatusView) -> String {
    let mut parts = match &state.pcscd {
        PcscdView::Connected { .. } => {
            let has_card = |view: &&ReaderView| !matches!(view.card, CardView::Empty);
            let cards = state.readers.iter().filter(has_card).count();
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
    let OutboxView { waiting, parked, write_error, .. } = &state.outbox;
    parts.push(format!("{} waiting", count(*waiting, "entry", "entries")));
    parts.extend((*parked > 0).then(|| format!("{parked} parked")));
    parts.extend(write_error.as_ref().map(|_| "outbox error".to_owned()));
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
        let settings = ReaderRules::default().settings_for(&reader, &attributes);
        ReaderView { reader, settings, attributes, since: since(), card }
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
    fn state_is_one_line_of_text() {
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
        let expected =
            "pcscd unavailable, CM unavailable (timeout), 1 entry waiting, 2 parked, outbox error";
        assert_eq!(status_text(&down), expected);
    }

    /// A service under a manager with a watchdog of three minutes.
    fn managed() -> (ServiceNotifier, UnixDatagram, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(path.as_os_str(), Some(Duration::from_mins(3))).unwrap();
        (ServiceNotifier::new(notifier), manager, dir)
    }

    fn received(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let mut states = Vec::new();
        while let Ok(length) = manager.recv(&mut buffer) {
            states.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        states
    }

    fn up(entries: usize) -> StatusView {
        let since = since();
        state(PcscdView::Connected { since }, CmView::Available { since }, waiting(entries))
    }

    #[test]
    fn idle_daemon_wakes_only_for_watchdog() {
        let (mut service, manager, _dir) = managed();
        let began = Instant::now();
        service.ready(began);
        service.on_loop_turn(began, || up(0));
        assert_eq!(received(&manager).len(), 2, "ready, and the state");
        for half in 1..4 {
            let due = service.due().unwrap();
            assert_eq!(due.duration_since(began), half * Duration::from_secs(90));
            service.on_loop_turn(due, || up(0));
            assert_eq!(received(&manager), ["WATCHDOG=1"]);
        }
    }

    #[test]
    fn busy_daemon_sends_status_once_a_second() {
        let (mut service, manager, _dir) = managed();
        let began = Instant::now();
        service.ready(began);
        for turn in 0..250_u16 {
            let now = began + u32::from(turn) * Duration::from_millis(10);
            service.on_loop_turn(now, || up(turn.into()));
        }
        let statuses = received(&manager).iter().filter(|it| it.starts_with("STATUS=")).count();
        assert_eq!(statuses, 3, "at 0, 1 and 2 s");
        let due = service.due().unwrap();
        assert_eq!(due.duration_since(began), Duration::from_secs(3));
        service.on_loop_turn(due, || up(250));
        assert!(received(&manager)[0].ends_with("250 entries waiting"));
        assert!(service.due().unwrap() > due + STATUS_INTERVAL, "then it is idle");
    }

    #[test]
    fn daemon_without_manager_never_wakes() {
        let mut service = ServiceNotifier::new(Notifier::default());
        let now = Instant::now();
        service.ready(now);
        service.on_loop_turn(now, || unreachable!("no manager"));
        assert_eq!(service.due(), None);
    }
}
