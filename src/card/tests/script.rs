//! A card for tests: a table of commands and the responses to them.

use std::collections::BTreeMap;

use super::super::{CommandApdu, Protocol, Transmit, TransmitError};
use crate::domain::Atr;

/// The ATR of a Microsoft virtual smart card.
pub(in crate::card) fn atr() -> Atr {
    "3b8d0180fba000000397425446590301c8".parse().unwrap()
}

/// The answer of a GIDS applet to its SELECT (recorded from `GidsApplet`).
pub(in crate::card) const GIDS_SELECTED: &str = "61124f0ba0000003974254465902017303 4001c09000";

/// The factory's file table of a GIDS card, 141 bytes.
pub(in crate::card) const GIDS_TABLE: &str = "01\
    6d73637000 00000000 000000000000000000 0000 00000000 00a00000\
    0000000000 00000000 636172646964000000 0000 20df0000 12a00000\
    0000000000 00000000 636172646170707300 0000 21df0000 10a00000\
    0000000000 00000000 636172646366000000 0000 22df0000 10a00000\
    6d73637000 00000000 636d617066696c6500 0000 23df0000 10a00000";

/// The id of the card that [`Script::gids`] is, in file order.
pub(in crate::card) const CARDID: &str = "3ff188bcba833740826246eba1291c6e";

/// What the card does: answers from its table, 6A82 to everything else.
pub(in crate::card) struct Script {
    protocol: Protocol,
    responses: BTreeMap<Vec<u8>, Vec<u8>>,
    sent: Vec<Vec<u8>>,
    interruption: Option<(usize, TransmitError)>,
}

impl Script {
    /// A card that knows nothing.
    pub(in crate::card) fn new(protocol: Protocol) -> Self {
        Self { protocol, responses: BTreeMap::new(), sent: Vec::new(), interruption: None }
    }

    /// An initialised GIDS card.
    pub(in crate::card) fn gids(protocol: Protocol) -> Self {
        let le = if protocol == Protocol::T1 { "00" } else { "" };
        Self::new(protocol)
            .on(&format!("00a4040009a00000039742544659{le}"), GIDS_SELECTED)
            .on(&format!("00cba000045c02df1f{le}"), &format!("df1f818d{GIDS_TABLE}9000"))
            .on(&format!("00cba012045c02df20{le}"), &format!("df2010{CARDID}9000"))
    }

    /// The card, with this response to this command.
    pub(in crate::card) fn on(mut self, command: &str, response: &str) -> Self {
        self.responses.insert(bytes(command), bytes(response));
        self
    }

    /// The card, whose connection ends after some commands.
    pub(in crate::card) fn interrupted_after(
        mut self,
        commands: usize,
        error: TransmitError,
    ) -> Self {
        self.interruption = Some((commands, error));
        self
    }

    /// Every command that it got.
    pub(in crate::card) fn sent(&self) -> Vec<String> {
        self.sent.iter().map(hex::encode).collect()
    }
}

impl Transmit for Script {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let command = command.to_bytes(self.protocol);
        self.sent.push(command.clone());
        match &self.interruption {
            Some((commands, error)) if self.sent.len() > *commands => Err(error.clone()),
            _ => Ok(self.responses.get(&command).cloned().unwrap_or_else(|| vec![0x6A, 0x82])),
        }
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }
}

/// Bytes as hex, blanks or none between them.
pub(in crate::card) fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

/// A card that answers from a list whatever it is asked, then from the list's end for ever.
#[derive(Debug)]
pub(in crate::card) struct Hostile {
    pub(in crate::card) answers: Vec<Vec<u8>>,
    pub(in crate::card) protocol: Protocol,
    pub(in crate::card) sent: usize,
}

impl Transmit for Hostile {
    fn transmit(&mut self, _: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let last = self.answers.len() - 1;
        let answer = self.answers[self.sent.min(last)].clone();
        self.sent += 1;
        Ok(answer)
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }
}
