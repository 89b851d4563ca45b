//! Errors of PC/SC, counted by their code: each thread counts its own, and whoever asks has them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pcsc::Error;

/// The count. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct ErrorCounters(Arc<Mutex<BTreeMap<String, u64>>>);

impl ErrorCounters {
    /// Counts an error on its way to whoever deals with it.
    pub(super) fn count(&self, error: Error) -> Error {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(format!("{error:?}")).or_default() += 1;
        error
    }

    /// How many there were, by code.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_code_whoever_meets_them() {
        let errors = ErrorCounters::default();
        let elsewhere = errors.clone();
        std::thread::spawn(move || elsewhere.count(Error::NoService)).join().unwrap();
        assert_eq!(errors.count(Error::NoService), Error::NoService);
        errors.count(Error::ResetCard);
        let expected = [("NoService", 2), ("ResetCard", 1)];
        assert_eq!(errors.counts(), expected.map(|(code, n)| (code.to_owned(), n)).into());
    }
}
