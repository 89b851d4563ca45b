//! One application on a card.

use super::apdu::{Answer, Command};

/// Answers commands while it is selected.
pub(super) trait Applet: std::fmt::Debug + Send {
    /// The applet's name, as in personalisation files.
    fn name(&self) -> &'static str;

    /// Whether `aid`, whole or in part, names this applet.
    fn answers_to(&self, aid: &[u8]) -> bool;

    /// It has been selected by this name: forgets what it remembers, and
    /// answers.
    fn select(&mut self, aid: &[u8]) -> Answer;

    /// Power-up: forgets what it remembers.
    fn power(&mut self) {}

    /// Answers anything but a SELECT by the name of an applet, GET RESPONSE and
    /// VERIFY.
    fn command(&mut self, command: &Command<'_>) -> Answer;

    /// Whether CPLC can be had while it is selected.
    fn shows_cplc(&self) -> bool {
        false
    }
}

/// Five bytes are the issuer's part of an AID: less does not name an applet.
pub(super) fn is_part_of(aid: &[u8], whole: &[u8]) -> bool {
    aid.len() >= 5 && whole.starts_with(aid)
}
