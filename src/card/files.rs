//! Files of a card, selected in whatever way it knows (ISO 7816-4 section 7.1.1), and read.
//!
//! What a card refused once, because it does not know it, is not tried again.

use super::apdu::{CommandApdu, SelectBy, StatusWord};
use super::exchange::{ExchangeError, exchange, read_file, send};
use super::family_result::where_given;
use super::{Transmit, TransmitError};

/// The MF.
const MF: [u8; 2] = [0x3F, 0x00];

/// "File not found".
const NO_FILE: StatusWord = StatusWord::NotFound(0x6A82);

/// A form of SELECT by a path from the MF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PathForm {
    /// Whether the path begins with the MF, as with the Belgian identity card.
    from_mf: bool,
    /// Without data in the answer (P2 = 0C).
    quiet: bool,
}

impl PathForm {
    /// What ISO 7816-4 has first, and most cards know.
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

/// What is known of a card's paths.
enum Paths {
    /// It may know these forms.
    Possible(Vec<PathForm>),
    /// A file was selected by this form.
    Known(PathForm),
}

/// The files of the selected application, or of the card.
pub(super) struct CardFiles<'a> {
    transport: &'a mut dyn Transmit,
    supports_path_select: Paths,
    /// Whether the MF may be selected, and files one after the other from there.
    supports_step_select: bool,
    /// Whether it knows only SELECT without data in the answer.
    no_response_select: bool,
    /// Whether it does not allow what was asked for: without a PIN, a key, or in its state.
    closed: bool,
}

impl<'a> CardFiles<'a> {
    /// Files of a card that nothing is known about.
    pub(super) fn new(transport: &'a mut dyn Transmit) -> Self {
        let paths = Paths::Possible(PathForm::ALL.to_vec());
        Self {
            transport,
            supports_path_select: paths,
            supports_step_select: true,
            no_response_select: false,
            closed: false,
        }
    }

    /// Selects a file by its path from the MF: in one step, or file by file.
    pub(super) fn select(&mut self, path: &[u8]) -> Result<bool, TransmitError> {
        let path = path.strip_prefix(&MF).unwrap_or(path);
        Ok(self.select_by_path(path)?
            || (self.supports_step_select && self.select_by_steps(path)?))
    }

    fn select_by_path(&mut self, path: &[u8]) -> Result<bool, TransmitError> {
        let forms = match &self.supports_path_select {
            Paths::Known(form) => vec![*form],
            Paths::Possible(forms) => forms.clone(),
        };
        let mut possible = Vec::new();
        for form in forms {
            let Some(command) = form.command(path) else { return Ok(false) };
            match self.go_once(&command)? {
                None => {
                    self.supports_path_select = Paths::Known(form);
                    self.no_response_select |= form.quiet;
                    return Ok(true);
                }
                // Whether it does not know the form, or has no such file or guards it: some cards say the
                // same to all.
                Some(status) if status == NO_FILE || status.is_not_allowed() => possible.push(form),
                Some(_) => {}
            }
        }
        if possible.contains(&PathForm::USUAL) {
            possible = vec![PathForm::USUAL];
        }
        if let Paths::Possible(forms) = &mut self.supports_path_select {
            *forms = possible;
        }
        Ok(false)
    }

    fn select_by_steps(&mut self, path: &[u8]) -> Result<bool, TransmitError> {
        let mf = CommandApdu::select_file(SelectBy::Identifier, MF);
        let mut refusal = self.go(&mf)?;
        if refusal == Some(NO_FILE) && !self.no_response_select {
            refusal = self.go_quietly(&mf)?;
        }
        if refusal.is_some() {
            self.supports_step_select = false;
            return Ok(false);
        }
        let (steps, _) = path.as_chunks::<2>();
        let Some((file, dfs)) = steps.split_last() else { return Ok(false) };
        for df in dfs {
            if self.go(&CommandApdu::select_file(SelectBy::Identifier, *df))?.is_some() {
                return Ok(false);
            }
        }
        self.select_child(*file)
    }

    /// Selects a file in the current DF.
    pub(super) fn select_child(&mut self, file: [u8; 2]) -> Result<bool, TransmitError> {
        for by in [SelectBy::ChildEf, SelectBy::Identifier] {
            if self.go(&CommandApdu::select_file(by, file))?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Selects an application by its name.
    pub(super) fn select_application(
        &mut self,
        select: &CommandApdu,
    ) -> Result<bool, TransmitError> {
        Ok(self.go(select)?.is_none())
    }

    /// Reads the selected file; `None` where the card does not let us.
    pub(super) fn read(
        &mut self,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, TransmitError> {
        where_given(read_file(self.transport, enough))
    }

    /// A record of the selected file.
    pub(super) fn record(&mut self, number: u8) -> Result<Option<Vec<u8>>, TransmitError> {
        where_given(exchange(self.transport, &CommandApdu::read_record(number)))
    }

    /// Whether the card does not allow something that it was asked for.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Selects; the status word of a refusal. A card that may not know an answer with data is asked
    /// for one without.
    fn go(&mut self, command: &CommandApdu) -> Result<Option<StatusWord>, TransmitError> {
        if !self.no_response_select {
            match self.go_once(command)? {
                Some(status) if status != NO_FILE => {}
                answer => return Ok(answer),
            }
        }
        self.go_quietly(command)
    }

    fn go_quietly(&mut self, command: &CommandApdu) -> Result<Option<StatusWord>, TransmitError> {
        let answer = self.go_once(&command.clone().without_response_data())?;
        self.no_response_select |= answer.is_none();
        Ok(answer)
    }

    fn go_once(&mut self, command: &CommandApdu) -> Result<Option<StatusWord>, TransmitError> {
        let answer = refusal(send(self.transport, command))?;
        self.closed |= answer.is_some_and(StatusWord::is_not_allowed);
        Ok(answer)
    }
}

fn refusal(answer: Result<(), ExchangeError>) -> Result<Option<StatusWord>, TransmitError> {
    match answer {
        Ok(()) => Ok(None),
        Err(ExchangeError::Interrupted(why)) => Err(why),
        Err(ExchangeError::Refused(status)) => Ok(Some(status)),
        Err(ExchangeError::Truncated(_) | ExchangeError::TooLong) => {
            Ok(Some(StatusWord::Unexpected(0)))
        }
    }
}
