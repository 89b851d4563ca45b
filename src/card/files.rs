//! Files of a card, selected in whatever way it knows (ISO 7816-4 section 7.1.1), and read.
//!
//! What a card refused once, because it does not know it, is not tried again.

use super::apdu::{By, Command, StatusWord};
use super::exchange::{NoAnswer, ask, go, read_file};
use super::reading::where_given;
use super::{Interrupted, Transmit};

/// The MF.
const MF: [u8; 2] = [0x3F, 0x00];

/// "Wrong P1 or P2", and "file not found".
const WRONG_MANNER: StatusWord = StatusWord::Absent(0x6A86);
const NO_FILE: StatusWord = StatusWord::Absent(0x6A82);

/// The files of the selected application, or of the card.
pub(super) struct Files<'a> {
    transport: &'a mut dyn Transmit,
    /// Whether it may know paths from the MF.
    paths: bool,
    /// Whether the MF may be selected, and files one after the other from there.
    steps: bool,
    /// Whether it knows only SELECT without a wish for an answer (P2 = 0C).
    quiet: bool,
}

impl<'a> Files<'a> {
    /// Files of a card that nothing is known about.
    pub(super) fn new(transport: &'a mut dyn Transmit) -> Self {
        Self { transport, paths: true, steps: true, quiet: false }
    }

    /// Selects a file by its path from the MF: in one step, or file by file.
    pub(super) fn select(&mut self, path: &[u8]) -> Result<bool, Interrupted> {
        let path = path.strip_prefix(&MF).unwrap_or(path);
        let Some(in_one_step) = Command::select_by(By::PathFromMf, path) else { return Ok(false) };
        if self.paths {
            match self.go(&in_one_step)? {
                None => return Ok(true),
                // Whether it knows no paths or has no such file: some cards say the same to both.
                Some(NO_FILE) => {}
                Some(_) => self.paths = false,
            }
        }
        Ok(self.steps && self.select_by_steps(path)?)
    }

    fn select_by_steps(&mut self, path: &[u8]) -> Result<bool, Interrupted> {
        if self.go(&Command::select_file(By::Identifier, MF))?.is_some() {
            self.steps = false;
            return Ok(false);
        }
        let (steps, _) = path.as_chunks::<2>();
        let Some((file, dfs)) = steps.split_last() else { return Ok(false) };
        for df in dfs {
            if self.go(&Command::select_file(By::Identifier, *df))?.is_some() {
                return Ok(false);
            }
        }
        self.select_here(*file)
    }

    /// Selects a file in the current DF.
    pub(super) fn select_here(&mut self, file: [u8; 2]) -> Result<bool, Interrupted> {
        for by in [By::ChildEf, By::Identifier] {
            if self.go(&Command::select_file(by, file))?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Selects an application by its name.
    pub(super) fn select_application(&mut self, select: &Command) -> Result<bool, Interrupted> {
        Ok(where_given(go(self.transport, select))?.is_some())
    }

    /// Reads the selected file; `None` where the card does not let us.
    pub(super) fn read(
        &mut self,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, Interrupted> {
        where_given(read_file(self.transport, enough))
    }

    /// A record of the selected file.
    pub(super) fn record(&mut self, number: u8) -> Result<Option<Vec<u8>>, Interrupted> {
        where_given(ask(self.transport, &Command::read_record(number)))
    }

    /// Selects; the status word of a refusal. A card that does not know the wish for an answer is
    /// asked without.
    fn go(&mut self, command: &Command) -> Result<Option<StatusWord>, Interrupted> {
        if !self.quiet {
            match refusal(go(self.transport, command))? {
                Some(WRONG_MANNER) => {}
                answer => return Ok(answer),
            }
        }
        let answer = refusal(go(self.transport, &command.clone().without_answer()))?;
        self.quiet |= answer.is_none();
        Ok(answer)
    }
}

fn refusal(answer: Result<(), NoAnswer>) -> Result<Option<StatusWord>, Interrupted> {
    match answer {
        Ok(()) => Ok(None),
        Err(NoAnswer::Interrupted(why)) => Err(why),
        Err(NoAnswer::Refused(status)) => Ok(Some(status)),
        Err(NoAnswer::Truncated(_) | NoAnswer::Endless) => Ok(Some(StatusWord::Unexpected(0))),
    }
}
