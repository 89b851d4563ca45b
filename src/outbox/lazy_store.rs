//! The store, or the place where it will be once the disk lets it.
//!
//! A disk that is full or read-only at the start is no reason to read no cards. What is in the file
//! is read as far as that goes without writing; every command tries to open it, and is answered
//! with why that failed until it works.

use super::error::{OpenError, StoreError};
use super::size_limits::SizeLimits;
use super::store::{DamagePolicy, Store, restore};
use super::{OutboxContents, OutboxOptions, read_only};

/// A store that is open, or that is not to be had at the moment.
#[derive(Debug)]
pub(super) enum LazyStore {
    /// It is open.
    Open(Box<Store>),
    /// The disk does not let it be opened.
    Closed(Box<ClosedStore>),
}

/// What it takes to open the store later.
#[derive(Debug)]
pub(super) struct ClosedStore {
    options: OutboxOptions,
    budget: SizeLimits,
    /// What was told at the start: the engine works with this.
    known: OutboxContents,
}

/// Another outbox came than the one that was read at the start.
#[derive(Debug, thiserror::Error)]
#[error("the outbox contents changed while it was not writable")]
struct ContentsChanged;

impl LazyStore {
    /// Opens the store, or tells what can be read of it where the disk does not let it be opened;
    /// then with why.
    pub(super) fn open(
        options: OutboxOptions,
        budget: SizeLimits,
        on_damage: DamagePolicy,
    ) -> Result<(Self, OutboxContents, Option<OpenError>), OpenError> {
        match Store::open(options.clone(), budget, on_damage) {
            Ok((store, restored)) => Ok((Self::Open(Box::new(store)), restored, None)),
            Err(error) if error.may_pass() && on_damage == DamagePolicy::Repair => {
                let known = readable(&options);
                let waiting = ClosedStore { options, budget, known: known.clone() };
                Ok((Self::Closed(Box::new(waiting)), known, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// The store, which is opened if need be.
    pub(super) fn store(&mut self) -> Result<&mut Store, StoreError> {
        if let Self::Closed(waiting) = self {
            *self = Self::Open(Box::new(waiting.open()?));
            tracing::info!("Outbox is writable again");
        }
        match self {
            Self::Open(store) => Ok(store),
            Self::Closed(_) => Err(StoreError::Busy),
        }
    }

    /// Empties the log of a store that is open. Tells whether another program keeps it from that.
    pub(super) fn tidy(&self) -> bool {
        match self {
            Self::Open(store) => store.tidy(),
            Self::Closed(_) => false,
        }
    }

    /// Lets the file go.
    pub(super) fn close(self) {
        if let Self::Open(store) = self {
            store.close();
        }
    }
}

impl ClosedStore {
    fn open(&self) -> Result<Store, StoreError> {
        let opened = Store::open(self.options.clone(), self.budget, DamagePolicy::Repair);
        let (store, restored) = opened.map_err(|error| StoreError::Io(Box::new(error)))?;
        if let Some(mended) = &restored.repaired {
            tracing::error!(%mended, "Damaged outbox file set aside");
        }
        // The next start goes on with what is there; this one knows nothing of it.
        if restored == self.known {
            Ok(store)
        } else {
            Err(StoreError::Lost(Box::new(ContentsChanged)))
        }
    }
}

/// What can be read without writing; nothing where there is no file, or none that can be read so.
fn readable(options: &OutboxOptions) -> OutboxContents {
    let read = || -> Result<OutboxContents, StoreError> {
        let unreadable = |error| StoreError::Io(Box::new(error));
        let looking = read_only::ReadOnlyOutbox::open(&options.path).map_err(unreadable)?;
        Ok(restore(&looking.connect().map_err(unreadable)?)?)
    };
    read().unwrap_or_default()
}
