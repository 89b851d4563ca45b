//! What was said on the way to an identity, readable while it is being said: a card that hangs is
//! told by the command that it did not answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::ApduExchange;

/// The exchanges of one probe. Clones are the same trail.
#[derive(Debug, Clone, Default)]
pub(super) struct ApduLog(Arc<Mutex<Vec<ApduExchange>>>);

impl ApduLog {
    /// A command goes out.
    pub(super) fn begin(&self, command: &[u8]) {
        let (command, response, took) = (command.to_vec(), Vec::new(), Duration::ZERO);
        self.lock().push(ApduExchange { command, response, duration: took });
    }

    /// The last command came to its end: with a response, or with none.
    pub(super) fn end(&self, response: &[u8], took: Duration) {
        if let Some(last) = self.lock().last_mut() {
            last.response = response.to_vec();
            last.duration = took;
        }
    }

    /// How many commands went out, restarts of the probe included.
    pub(super) fn length(&self) -> usize {
        self.lock().len()
    }

    /// Everything so far.
    pub(super) fn exchanges(&self) -> Vec<ApduExchange> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ApduExchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_answered_is_there_all_the_same() {
        let trail = ApduLog::default();
        trail.begin(&[1]);
        trail.end(&[0x90, 0x00], Duration::from_millis(1));
        trail.clone().begin(&[2]);
        let told: Vec<_> = trail.exchanges().into_iter().map(|e| (e.command, e.response)).collect();
        assert_eq!(told, [(vec![1], vec![0x90, 0x00]), (vec![2], vec![])]);
    }
}
