//! A card with one applet or several: which one is current, which PINs are
//! verified, and the quirks that they share.

use std::fmt::Debug;

use super::Card;
use super::apdu::{
    Answer, Command, DATA_NOT_FOUND, NO_SUCH_CLASS, NO_SUCH_COMMAND, NOT_FOUND, WRONG_LENGTH,
    WRONG_PARAMETERS, object,
};
use super::applet::{Applet, is_part_of};
use super::pins::Pins;
use super::transport::{Protocol, Transport};

/// The issuer security domain, that is the card manager, of a `GlobalPlatform`
/// card.
const CARD_MANAGER: [u8; 8] = [0xA0, 0x00, 0x00, 0x01, 0x51, 0x00, 0x00, 0x00];

/// How a card behaves whatever its applets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quirks {
    pub(super) protocol: Protocol,
    /// The answer to a SELECT by an AID that the card does not have; the
    /// earlier applet remains selected.
    pub(super) unknown_aid: u16,
    /// SELECT of an applet answers 9000 without data.
    pub(super) bare_select: bool,
    /// Whether APDUs of extended length are understood.
    pub(super) extended: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self { protocol: Protocol::T1, unknown_aid: NOT_FOUND, bare_select: false, extended: false }
    }
}

/// A card made of applets; [`super::load`] and [`AppletCard::load`] make it
/// from a personalisation file.
#[derive(Debug)]
pub struct AppletCard {
    atr: Vec<u8>,
    quirks: Quirks,
    applets: Vec<Box<dyn Applet>>,
    /// Index into `applets` of what a reset selects; the card manager if none.
    default: Option<usize>,
    current: Option<usize>,
    pins: Pins,
    cplc: Option<Vec<u8>>,
    uid: Option<Vec<u8>>,
    transport: Transport,
}

impl AppletCard {
    pub(super) fn new(atr: Vec<u8>, quirks: Quirks) -> Self {
        Self {
            atr,
            quirks,
            applets: Vec::new(),
            default: None,
            current: None,
            pins: Pins::default(),
            cplc: None,
            uid: None,
            transport: Transport::new(quirks.protocol),
        }
    }

    /// Adds an applet; with a PIN if it has one.
    pub(super) fn install(&mut self, applet: Box<dyn Applet>, pin: Option<Vec<u8>>) {
        if let Some(pin) = pin {
            self.pins.add(applet.name(), pin);
        }
        self.applets.push(applet);
    }

    /// Makes an applet the one that a reset selects; false where there is no
    /// such applet.
    pub(super) fn select_by_default(&mut self, name: &str) -> bool {
        self.default = self.applets.iter().position(|applet| applet.name() == name);
        self.current = self.default;
        self.default.is_some()
    }

    pub(super) fn set_cplc(&mut self, cplc: Vec<u8>) {
        self.cplc = Some(cplc);
    }

    pub(super) fn set_uid(&mut self, uid: Vec<u8>) {
        self.uid = Some(uid);
    }

    /// The PINs of the applets; take it before the card goes into a reader.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// The name of the applet that is selected, `None` for the card manager.
    #[must_use]
    pub fn current(&self) -> Option<&'static str> {
        self.applets.get(self.current?).map(|applet| applet.name())
    }

    fn answer(&mut self, command: &Command<'_>) -> Answer {
        match (command.class, command.instruction) {
            _ if command.extended && !self.quirks.extended => Answer::status(WRONG_LENGTH),
            (0xFF, 0xCA) => self.uid_answer(command),
            (0xFF, _) => Answer::status(NO_SUCH_CLASS),
            (0x00, 0xA4) if command.p1 == 0x04 => self.select(command),
            (0x00, 0x20) => self.verify(command.data),
            (0x00 | 0x80, 0xCA) if command.p1_p2() == 0x9F7F && self.shows_cplc() => {
                self.cplc_answer()
            }
            _ => self.ask_current(command),
        }
    }

    /// SELECT by AID. What is not there leaves everything as it was.
    fn select(&mut self, command: &Command<'_>) -> Answer {
        let aid = command.data;
        let found = self.applets.iter().position(|applet| applet.answers_to(aid));
        if let Some(found) = found {
            self.make_current(Some(found));
            return self.selected(command);
        }
        let manager = self.cplc.is_some() && (aid.is_empty() || is_part_of(aid, &CARD_MANAGER));
        if manager {
            self.make_current(None);
            let file = object(0x6F, &object(0x84, &CARD_MANAGER));
            return Answer::data(file);
        }
        Answer::status(self.quirks.unknown_aid)
    }

    fn selected(&mut self, command: &Command<'_>) -> Answer {
        let Some(applet) = self.current.and_then(|index| self.applets.get_mut(index)) else {
            return Answer::status(NOT_FOUND);
        };
        let answer = applet.select(command.data);
        let wants_no_data = command.p2 & 0x0C == 0x0C;
        if self.quirks.bare_select || wants_no_data {
            return Answer::status(answer.status);
        }
        answer
    }

    /// Both the applet left and the one entered forget their PIN, also where
    /// they are the same.
    fn make_current(&mut self, next: Option<usize>) {
        for index in [self.current, next].into_iter().flatten() {
            if let Some(applet) = self.applets.get(index) {
                self.pins.forget(applet.name());
            }
        }
        self.current = next;
    }

    fn verify(&self, offered: &[u8]) -> Answer {
        match self.current() {
            Some(applet) => self.pins.answer(applet, offered),
            None => Answer::status(NO_SUCH_COMMAND),
        }
    }

    fn shows_cplc(&self) -> bool {
        let current = self.current.and_then(|index| self.applets.get(index));
        current.is_none_or(|applet| applet.shows_cplc())
    }

    fn cplc_answer(&self) -> Answer {
        match &self.cplc {
            Some(cplc) => Answer::data(object(0x9F7F, cplc)),
            None => Answer::status(DATA_NOT_FOUND),
        }
    }

    /// The reader's own answer for a contactless card; a contact reader passes
    /// the command on, and the card does not know the class.
    fn uid_answer(&self, command: &Command<'_>) -> Answer {
        match &self.uid {
            None => Answer::status(NO_SUCH_CLASS),
            Some(uid) if command.p1_p2() == 0 => Answer::data(uid.clone()),
            Some(_) => Answer::status(0x6A81),
        }
    }

    fn ask_current(&mut self, command: &Command<'_>) -> Answer {
        match self.current.and_then(|index| self.applets.get_mut(index)) {
            Some(applet) => applet.command(command),
            None if command.instruction == 0xA4 => Answer::status(WRONG_PARAMETERS),
            None => Answer::status(NO_SUCH_COMMAND),
        }
    }
}

impl Card for AppletCard {
    fn atr(&self) -> Vec<u8> {
        self.atr.clone()
    }

    fn power(&mut self) {
        for applet in &mut self.applets {
            self.pins.forget(applet.name());
            applet.power();
        }
        self.current = self.default;
        self.transport.clear();
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        let Some(command) = Command::parse(apdu) else {
            return WRONG_LENGTH.to_be_bytes().to_vec();
        };
        if let Some(part) = self.transport.get_response(&command) {
            return part;
        }
        let answer = self.answer(&command);
        self.transport.send(&command, answer)
    }
}

#[cfg(test)]
mod tests;
