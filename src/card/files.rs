//! A card's files, selected by whatever form of SELECT it knows (ISO 7816-4 section 7.1.1), and read.
//!
//! A form that the card does not know is not tried again.

use super::apdu::{CommandApdu, SelectBy, StatusWord};
use super::exchange::{ExchangeError, exchange, optional, read_file, send};
use super::{Transmit, TransmitError};

const MF: [u8; 2] = [0x3F, 0x00];

const NO_FILE: StatusWord = StatusWord::NotFound(0x6A82);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PathForm {
    /// The path begins with the MF, as on the Belgian identity card.
    from_mf: bool,
    /// Without response data (P2 = 0C).
    quiet: bool,
}

impl PathForm {
    /// The first form of ISO 7816-4, which most cards know.
    const USUAL: Self = Self { from_mf: false, quiet: false };

    const ALL: [Self; 4] = [
        Self::USUAL,
        Self { from_mf: false, quiet: true },
        Self { from_mf: true, quiet: true },
        Self { from_mf: true, quiet: false },
    ];

    fn command(self, path: &[u8]) -> Option<CommandApdu> {
        let mf: &[u8] = if self.from_mf { &MF } else { &[] };
        let command = CommandApdu::select_by(SelectBy::PathFromMf, &[mf, path].concat())?;
        Some(if self.quiet { command.without_response_data() } else { command })
    }
}

pub(super) struct CardFiles<'a> {
    transport: &'a mut dyn Transmit,
    /// The form that selected a file, or the forms that the card may know.
    known_form: Option<PathForm>,
    possible_forms: Vec<PathForm>,
    /// Whether the MF can be selected, and files step by step from there.
    supports_step_select: bool,
    /// Whether the card knows only SELECT without response data.
    no_response_select: bool,
    /// Whether the card did not allow a command: without a PIN, a key, or in its state.
    pub(super) is_closed: bool,
}

impl<'a> CardFiles<'a> {
    pub(super) fn new(transport: &'a mut dyn Transmit) -> Self {
        Self {
            transport,
            known_form: None,
            possible_forms: PathForm::ALL.to_vec(),
            supports_step_select: true,
            no_response_select: false,
            is_closed: false,
        }
    }

    /// Selects a file by its path from the MF: in one step, or file by file.
    pub(super) fn select(&mut self, path: &[u8]) -> Result<bool, TransmitError> {
        let path = path.strip_prefix(&MF).unwrap_or(path);
        Ok(self.select_by_path(path)?
            || (self.supports_step_select && self.select_by_steps(path)?))
    }

    fn select_by_path(&mut self, path: &[u8]) -> Result<bool, TransmitError> {
        let mut possible = Vec::new();
        for form in self.known_form.map_or(self.possible_forms.clone(), |form| vec![form]) {
            let Some(command) = form.command(path) else { return Ok(false) };
            match self.send_once(&command)? {
                None => {
                    self.known_form = Some(form);
                    self.no_response_select |= form.quiet;
                    return Ok(true);
                }
                // An unknown form, a missing file or a protected one: some cards answer all alike.
                Some(status) if status == NO_FILE || status.is_not_allowed() => possible.push(form),
                Some(_) => {}
            }
        }
        let is_usual = possible.contains(&PathForm::USUAL);
        self.possible_forms = if is_usual { vec![PathForm::USUAL] } else { possible };
        Ok(false)
    }

    fn select_by_steps(&mut self, path: &[u8]) -> Result<bool, TransmitError> {
        let mf = CommandApdu::select_file(SelectBy::Identifier, MF);
        let mut refusal = self.send(&mf)?;
        if refusal == Some(NO_FILE) && !self.no_response_select {
            refusal = self.send_quietly(&mf)?;
        }
        if refusal.is_some() {
            self.supports_step_select = false;
            return Ok(false);
        }
        let (steps, _) = path.as_chunks::<2>();
        let Some((file, dfs)) = steps.split_last() else { return Ok(false) };
        for df in dfs {
            if self.send(&CommandApdu::select_file(SelectBy::Identifier, *df))?.is_some() {
                return Ok(false);
            }
        }
        self.select_child(*file)
    }

    pub(super) fn select_child(&mut self, file: [u8; 2]) -> Result<bool, TransmitError> {
        Ok(self.send(&CommandApdu::select_file(SelectBy::ChildEf, file))?.is_none()
            || self.send(&CommandApdu::select_file(SelectBy::Identifier, file))?.is_none())
    }

    pub(super) fn select_application(
        &mut self,
        select: &CommandApdu,
    ) -> Result<bool, TransmitError> {
        Ok(self.send(select)?.is_none())
    }

    /// Reads the selected file; `None` where the card refuses.
    pub(super) fn read(
        &mut self,
        is_enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, TransmitError> {
        optional(read_file(self.transport, is_enough))
    }

    /// Reads a record of the selected file; `None` where the card refuses.
    pub(super) fn record(&mut self, number: u8) -> Result<Option<Vec<u8>>, TransmitError> {
        optional(exchange(self.transport, &CommandApdu::read_record(number)))
    }

    /// Sends a SELECT, and once more without response data where the card may know no other. Returns the
    /// status word of a refusal.
    fn send(&mut self, command: &CommandApdu) -> Result<Option<StatusWord>, TransmitError> {
        if !self.no_response_select {
            match self.send_once(command)? {
                Some(status) if status != NO_FILE => {}
                refusal => return Ok(refusal),
            }
        }
        self.send_quietly(command)
    }

    fn send_quietly(&mut self, command: &CommandApdu) -> Result<Option<StatusWord>, TransmitError> {
        let refusal = self.send_once(&command.clone().without_response_data())?;
        self.no_response_select |= refusal.is_none();
        Ok(refusal)
    }

    fn send_once(&mut self, command: &CommandApdu) -> Result<Option<StatusWord>, TransmitError> {
        let refusal = match send(self.transport, command) {
            Ok(()) => None,
            Err(ExchangeError::Interrupted(error)) => return Err(error),
            Err(ExchangeError::Refused(status)) => Some(status),
            Err(_) => Some(StatusWord::Unexpected(0)),
        };
        self.is_closed |= refusal.is_some_and(StatusWord::is_not_allowed);
        Ok(refusal)
    }
}
