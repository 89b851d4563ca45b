//! GIDS as one applet of several.

use serde::Deserialize;

use super::super::apdu::{Answer, Command, NO_SUCH_CLASS, NO_SUCH_COMMAND};
use super::super::applet::{Applet, is_part_of};
use super::super::hex_text::Exactly;
use super::{AID, GidsCard};

/// The table `[gids]` of a personalisation file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Personal {
    /// The content of `cardid`; without it the table has no such row.
    cardid: Option<Exactly<16>>,
    /// Installed and never initialised: there is no table.
    #[serde(default)]
    uninitialised: bool,
    /// Files listed before the others.
    #[serde(default)]
    more_files: u8,
    pub(in super::super) pin: Option<String>,
}

impl Personal {
    /// The applet as personalised.
    pub(in super::super) fn applet(self) -> GidsCard {
        match self.cardid {
            _ if self.uninitialised => GidsCard::uninitialised(),
            None => GidsCard::without_cardid(),
            Some(Exactly(cardid)) if self.more_files == 0 => GidsCard::new(cardid),
            Some(Exactly(cardid)) => GidsCard::new(cardid).with_more_files(self.more_files),
        }
    }
}

impl Applet for GidsCard {
    fn name(&self) -> &'static str {
        "gids"
    }

    fn answers_to(&self, aid: &[u8]) -> bool {
        is_part_of(aid, &AID)
    }

    fn select(&mut self, _aid: &[u8]) -> Answer {
        Answer::data(Self::template())
    }

    fn command(&mut self, command: &Command<'_>) -> Answer {
        match (command.class, command.instruction) {
            (0x00, 0xCB) => match self.content(command.p1_p2(), command.data) {
                Ok(content) => Answer::data(content),
                Err(status) => Answer::status(status),
            },
            (0x00, _) => Answer::status(NO_SUCH_COMMAND),
            _ => Answer::status(NO_SUCH_CLASS),
        }
    }
}
