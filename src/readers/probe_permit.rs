//! How far a probe has come on its way to a card, for whoever has to say why it comes no further.
//!
//! pcscd keeps a connection waiting for the end of another program's transaction, and libpcsclite keeps
//! a transaction waiting, for as long as that takes. Nothing interrupts either. So the thread is given
//! up for the time being: it sends nothing to the card when its turn comes after all.

use std::sync::{Arc, Mutex, PoisonError};

/// Where a probe is. Clones are the same probe's.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbePermit(Arc<Mutex<ProbePhase>>);

/// Where a probe is on its way to its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ProbePhase {
    /// Not on its way: before it, or it has the card to itself.
    #[default]
    Free,
    /// It waits for a connection.
    Connecting,
    /// It has a connection, and waits for its transaction.
    Starting,
    /// It was given up while it waited, and still waits.
    Abandoned,
    /// It was given up, and waits no longer.
    Ended,
}

impl ProbePermit {
    /// Goes to another stand; false once it was given up.
    pub(super) fn start(&self, to: ProbePhase) -> bool {
        let mut stand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stand, ProbePhase::Abandoned | ProbePhase::Ended) {
            return false;
        }
        *stand = to;
        true
    }

    /// One that was given up has ended its wait: another may have its turn.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ProbePhase::Ended;
    }

    /// Where it is now.
    pub(super) fn phase(&self) -> ProbePhase {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it up, if it still waits; tells whether it does.
    pub(super) fn abandon(&self) -> bool {
        let mut stand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = matches!(*stand, ProbePhase::Connecting | ProbePhase::Starting);
        if waits {
            *stand = ProbePhase::Abandoned;
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_was_given_up_never_has_its_turn() {
        let turn = ProbePermit::default();
        assert!(!turn.abandon(), "it does not wait");
        assert!(turn.start(ProbePhase::Connecting) && turn.start(ProbePhase::Starting));
        assert!(turn.clone().abandon());
        assert!(!turn.start(ProbePhase::Free));
        assert_eq!((turn.phase(), turn.abandon()), (ProbePhase::Abandoned, false));
        turn.end();
        assert_eq!(
            (turn.start(ProbePhase::Free), turn.phase(), turn.abandon()),
            (false, ProbePhase::Ended, false)
        );
    }

    #[test]
    fn a_probe_that_has_its_turn_is_not_given_up() {
        let turn = ProbePermit::default();
        assert!(turn.start(ProbePhase::Starting) && turn.start(ProbePhase::Free));
        assert!(!turn.abandon());
    }
}
