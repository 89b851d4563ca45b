//! How far a probe has come on its way to a card, for whoever has to say why it comes no further.
//!
//! pcscd keeps a connection waiting for the end of another program's transaction, and libpcsclite keeps
//! a transaction waiting, for as long as that takes. Nothing interrupts either. So the thread is given
//! up for the time being: it sends nothing to the card when its turn comes after all.

use std::sync::{Arc, Mutex, PoisonError};

/// Where a probe is. Clones are the same probe's.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<Mutex<Stand>>);

/// Where a probe is on its way to its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stand {
    /// Not on its way: before it, or it has the card to itself.
    #[default]
    Free,
    /// It waits for a connection.
    Connecting,
    /// It has a connection, and waits for its transaction.
    Beginning,
    /// It was given up while it waited, and still waits.
    GivenUp,
    /// It was given up, and waits no longer.
    Over,
}

impl Turn {
    /// Goes to another stand; false once it was given up.
    pub(super) fn go(&self, to: Stand) -> bool {
        let mut stand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stand, Stand::GivenUp | Stand::Over) {
            return false;
        }
        *stand = to;
        true
    }

    /// One that was given up has ended its wait: another may have its turn.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Stand::Over;
    }

    /// Where it is now.
    pub(super) fn stand(&self) -> Stand {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it up, if it still waits; tells whether it does.
    pub(super) fn give_up(&self) -> bool {
        let mut stand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = matches!(*stand, Stand::Connecting | Stand::Beginning);
        if waits {
            *stand = Stand::GivenUp;
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_was_given_up_never_has_its_turn() {
        let turn = Turn::default();
        assert!(!turn.give_up(), "it does not wait");
        assert!(turn.go(Stand::Connecting) && turn.go(Stand::Beginning));
        assert!(turn.clone().give_up());
        assert!(!turn.go(Stand::Free));
        assert_eq!((turn.stand(), turn.give_up()), (Stand::GivenUp, false));
        turn.end();
        assert_eq!(
            (turn.go(Stand::Free), turn.stand(), turn.give_up()),
            (false, Stand::Over, false)
        );
    }

    #[test]
    fn a_probe_that_has_its_turn_is_not_given_up() {
        let turn = Turn::default();
        assert!(turn.go(Stand::Beginning) && turn.go(Stand::Free));
        assert!(!turn.give_up());
    }
}
