//! One transaction with one card, as [`card`](crate::card) wants it: exchanges are timed, logged at
//! TRACE and kept, and none begins after the deadline.

use std::time::{Duration, Instant};

use pcsc::{MAX_BUFFER_SIZE, Transaction};
use tracing::trace;

use crate::card::{CommandApdu, MAX_COMMANDS, Protocol, Transmit, TransmitError};
use crate::domain::{CardIdentity, ReaderName};

use super::apdu_log::ApduLog;
use super::cancel::CancelToken;
use super::error_counters::ErrorCounters;
use super::pcsc_errors::{card_error_text, to_transmit_error};

/// The longest reader name of pcsc-lite, with its end, and the two NULs of the list it comes in.
const NAME_SPACE: usize = 130;

/// How long after a card said who it is it is asked for more. Nothing is sent to CM before that.
const INVENTORY_WITHIN: Duration = Duration::from_millis(500);

/// A response has at least this many bytes.
const STATUS_WORD: usize = 2;

/// A transaction that commands can go through.
pub(super) struct PcscTransport<'a> {
    transaction: &'a Transaction<'a>,
    protocol: Protocol,
    limits: ProbeLimits<'a>,
    apdu_log: &'a ApduLog,
    errors: &'a ErrorCounters,
    /// Is called once the card has said who it is.
    identified: &'a mut dyn FnMut(&CardIdentity),
}

/// What ends a probe from outside.
#[derive(Clone, Copy)]
pub(super) struct ProbeLimits<'a> {
    /// For the log.
    pub(super) reader: &'a ReaderName,
    /// Nothing is sent after this.
    pub(super) deadline: Instant,
    /// Nothing is sent after this was called.
    pub(super) halt: &'a CancelToken,
}

impl<'a> PcscTransport<'a> {
    /// The way to the card of a transaction.
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        limits: ProbeLimits<'a>,
        (trail, errors): (&'a ApduLog, &'a ErrorCounters),
        identified: &'a mut dyn FnMut(&CardIdentity),
    ) -> Result<Self, TransmitError> {
        let protocol = protocol(transaction, errors)?;
        Ok(Self { transaction, protocol, limits, apdu_log: trail, errors, identified })
    }
}

impl Transmit for PcscTransport<'_> {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let began = Instant::now();
        if began >= self.limits.deadline || self.limits.halt.is_cancelled() {
            return Err(TransmitError::TimedOut);
        }
        if self.apdu_log.length() >= MAX_COMMANDS {
            let what = format!("card lost its state again and again, in {MAX_COMMANDS} commands");
            return Err(TransmitError::Failed { detail: what });
        }
        let command = command.to_bytes(self.protocol);
        self.apdu_log.begin(&command);
        let mut buffer = [0; MAX_BUFFER_SIZE];
        let response = self.transaction.transmit(&command, &mut buffer).map(<[u8]>::to_vec);
        let took = began.elapsed();
        trace!(
            reader = %self.limits.reader,
            command = hex::encode(&command),
            response = response.as_ref().map(hex::encode).unwrap_or_default(),
            error = response.as_ref().err().map(tracing::field::display),
            micros = took.as_micros(),
            "APDU exchange"
        );
        self.apdu_log.end(response.as_deref().unwrap_or_default(), took);
        match response {
            // Some drivers call it a success when the card is torn out under a command.
            Ok(response) if response.len() < STATUS_WORD => Err(TransmitError::Reset),
            Ok(response) => Ok(response),
            Err(error) => Err(to_transmit_error(self.errors.count(error))),
        }
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn identified(&mut self, identity: &CardIdentity) {
        (self.identified)(identity);
        if !identity.partial {
            self.limits.deadline = self.limits.deadline.min(Instant::now() + INVENTORY_WITHIN);
        }
    }
}

/// The protocol that the connection ended up with; the crate keeps it to itself.
fn protocol(
    transaction: &Transaction<'_>,
    errors: &ErrorCounters,
) -> Result<Protocol, TransmitError> {
    let (mut name, mut atr) = ([0; NAME_SPACE], [0; pcsc::MAX_ATR_SIZE]);
    let status = transaction.status2(&mut name, &mut atr);
    let status = status.map_err(|error| to_transmit_error(errors.count(error)))?;
    agreed(status.protocol2())
}

/// What a status says of the protocol.
///
/// A connection has one, so a status without one is of a moment before it: below 2.0.3 the library
/// keeps the readers' states where its threads overwrite each other's. Asking again cures that.
fn agreed(protocol: Option<pcsc::Protocol>) -> Result<Protocol, TransmitError> {
    match protocol {
        Some(pcsc::Protocol::T0) => Ok(Protocol::T0),
        Some(pcsc::Protocol::T1) => Ok(Protocol::T1),
        Some(pcsc::Protocol::RAW) => {
            Err(TransmitError::Failed { detail: card_error_text(pcsc::Error::ProtoMismatch) })
        }
        None => Err(TransmitError::Reset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_a_protocol_is_asked_for_again() {
        assert_eq!(agreed(None), Err(TransmitError::Reset));
        assert_eq!(agreed(Some(pcsc::Protocol::T0)), Ok(Protocol::T0));
        let raw = agreed(Some(pcsc::Protocol::RAW));
        assert!(matches!(raw, Err(TransmitError::Failed { .. })), "no card is spoken to so");
    }
}
