//! The store, or the place where it will be once the disk lets it.
//!
//! A disk that is full or read-only at the start is no reason to read no cards. What is in the file
//! is read as far as that goes without writing; every command tries to open it, and is answered
//! with why that failed until it works.

use super::budget::Budget;
use super::error::{OpenError, StoreError};
use super::store::{OnDamage, Store, restore};
use super::{Options, Restored, read_only};

/// A store that is open, or that is not to be had at the moment.
#[derive(Debug)]
pub(super) enum Slot {
    /// It is open.
    Open(Box<Store>),
    /// The disk does not let it be opened.
    Waiting(Box<Waiting>),
}

/// What it takes to open the store later.
#[derive(Debug)]
pub(super) struct Waiting {
    options: Options,
    budget: Budget,
    /// What was told at the start: the engine works with this.
    known: Restored,
}

/// Another outbox came than the one that was read at the start.
#[derive(Debug, thiserror::Error)]
#[error("the outbox that can be written again is not what was read at the start")]
struct Another;

impl Slot {
    /// Opens the store, or tells what can be read of it where the disk does not let it be opened;
    /// then with why.
    pub(super) fn open(
        options: Options,
        budget: Budget,
        on_damage: OnDamage,
    ) -> Result<(Self, Restored, Option<OpenError>), OpenError> {
        match Store::open(options.clone(), budget, on_damage) {
            Ok((store, restored)) => Ok((Self::Open(Box::new(store)), restored, None)),
            Err(error) if error.may_pass() && on_damage == OnDamage::Mend => {
                let known = readable(&options);
                let waiting = Waiting { options, budget, known: known.clone() };
                Ok((Self::Waiting(Box::new(waiting)), known, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// The store, which is opened if need be.
    pub(super) fn store(&mut self) -> Result<&mut Store, StoreError> {
        if let Self::Waiting(waiting) = self {
            *self = Self::Open(Box::new(waiting.open()?));
            tracing::info!("Outbox can be written again");
        }
        match self {
            Self::Open(store) => Ok(store),
            Self::Waiting(_) => Err(StoreError::Busy),
        }
    }

    /// Empties the log of a store that is open. Tells whether another program keeps it from that.
    pub(super) fn tidy(&self) -> bool {
        match self {
            Self::Open(store) => store.tidy(),
            Self::Waiting(_) => false,
        }
    }

    /// Lets the file go.
    pub(super) fn close(self) {
        if let Self::Open(store) = self {
            store.close();
        }
    }
}

impl Waiting {
    fn open(&self) -> Result<Store, StoreError> {
        let opened = Store::open(self.options.clone(), self.budget, OnDamage::Mend);
        let (store, restored) = opened.map_err(|error| StoreError::Unwritable(Box::new(error)))?;
        if let Some(mended) = &restored.mended {
            tracing::error!(%mended, "Outbox was damaged and is set aside");
        }
        // The next start goes on with what is there; this one knows nothing of it.
        if restored == self.known { Ok(store) } else { Err(StoreError::Lost(Box::new(Another))) }
    }
}

/// What can be read without writing; nothing where there is no file, or none that can be read so.
fn readable(options: &Options) -> Restored {
    let read = || -> Result<Restored, StoreError> {
        let unreadable = |error| StoreError::Unwritable(Box::new(error));
        let looking = read_only::ReadOnly::open(&options.path).map_err(unreadable)?;
        Ok(restore(&looking.connect().map_err(unreadable)?)?)
    };
    read().unwrap_or_default()
}
