//! Files of a card, selected in whatever way it knows (ISO 7816-4 section 7.1.1), and read.
//!
//! What a card refused once, because it does not know it, is not tried again.

use super::apdu::{By, Command, StatusWord};
use super::exchange::{NoAnswer, ask, go, read_file};
use super::reading::where_given;
use super::{Interrupted, Transmit};

/// The MF.
const MF: [u8; 2] = [0x3F, 0x00];

/// "File not found".
const NO_FILE: StatusWord = StatusWord::Absent(0x6A82);

/// The files of the selected application, or of the card.
pub(super) struct Files<'a> {
    transport: &'a mut dyn Transmit,
    /// Whether it may know paths from the MF.
    paths: bool,
    /// Whether the MF may be selected, and files one after the other from there.
    steps: bool,
    /// Whether it knows only SELECT without data in the answer (P2 = 0C).
    quiet: bool,
    /// Whether its paths from the MF begin with the MF, as those of the Belgian identity card do.
    from_mf: bool,
    /// Whether it keeps what was asked for behind a PIN or a key.
    protected: bool,
}

impl<'a> Files<'a> {
    /// Files of a card that nothing is known about.
    pub(super) fn new(transport: &'a mut dyn Transmit) -> Self {
        Self { transport, paths: true, steps: true, quiet: false, from_mf: false, protected: false }
    }

    /// Selects a file by its path from the MF: in one step, or file by file.
    pub(super) fn select(&mut self, path: &[u8]) -> Result<bool, Interrupted> {
        let path = path.strip_prefix(&MF).unwrap_or(path);
        Ok((self.paths && self.select_by_path(path)?)
            || (self.steps && self.select_by_steps(path)?))
    }

    fn select_by_path(&mut self, path: &[u8]) -> Result<bool, Interrupted> {
        let (Some(in_one_step), Some(with_mf)) = (
            Command::select_by(By::PathFromMf, path),
            Command::select_by(By::PathFromMf, &[MF.as_slice(), path].concat()),
        ) else {
            return Ok(false);
        };
        if self.from_mf {
            return Ok(self.go_quietly(&with_mf)?.is_none());
        }
        let loud = if self.quiet { None } else { Some(self.go_once(&in_one_step)?) };
        let knows_answers = !loud.flatten().is_some_and(StatusWord::is_unknown_form);
        let answer = match loud {
            Some(answer) if knows_answers => answer,
            Some(_) | None => self.go_quietly(&in_one_step)?,
        };
        match answer {
            None => return Ok(true),
            Some(_) if !knows_answers => {
                self.from_mf = self.go_quietly(&with_mf)?.is_none();
                if self.from_mf {
                    return Ok(true);
                }
            }
            Some(_) => {}
        }
        // Whether it knows no paths or has no such file: some cards say the same to both.
        self.paths = answer == Some(NO_FILE);
        Ok(false)
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
        Ok(self.go(select)?.is_none())
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

    /// Whether the card refused something that it keeps behind a PIN or a key.
    pub(super) const fn is_protected(&self) -> bool {
        self.protected
    }

    /// Selects; the status word of a refusal. A card that does not know an answer with data is asked
    /// for one without.
    fn go(&mut self, command: &Command) -> Result<Option<StatusWord>, Interrupted> {
        if !self.quiet {
            match self.go_once(command)? {
                Some(status) if status.is_unknown_form() => {}
                answer => return Ok(answer),
            }
        }
        self.go_quietly(command)
    }

    fn go_quietly(&mut self, command: &Command) -> Result<Option<StatusWord>, Interrupted> {
        let answer = self.go_once(&command.clone().without_answer())?;
        self.quiet |= answer.is_none();
        Ok(answer)
    }

    fn go_once(&mut self, command: &Command) -> Result<Option<StatusWord>, Interrupted> {
        let answer = refusal(go(self.transport, command))?;
        self.protected |= answer == Some(StatusWord::Protected);
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
