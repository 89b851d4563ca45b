//! One transaction with one card, as [`card`](crate::card) needs it: exchanges are timed, logged at TRACE
//! and kept, and none begins after the deadline.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pcsc::{MAX_BUFFER_SIZE, Transaction};
use tracing::trace;

use crate::card::{CommandApdu, MAX_COMMANDS, Protocol, Transmit, TransmitError};
use crate::domain::{ApduExchange, CardIdentity, ReaderName};

use super::pcsc_errors::{card_error_text, to_transmit_error};
use super::shared_state::SharedState;
use super::thread::CancelToken;

/// pcsc-lite's longest reader name with its NUL, and the two NULs of the list it comes in.
const NAME_SPACE: usize = 130;

/// How long after its identity a card is asked for its inventory. CM is not called before that.
const INVENTORY_TIMEOUT: Duration = Duration::from_millis(500);

const MIN_RESPONSE: usize = 2;

/// A probe's state, readable while its thread is blocked. Clones are the same probe's.
///
/// pcscd delays a connection, and libpcsclite a transaction, until another program's transaction ends.
/// Nothing interrupts either. So the thread is abandoned meanwhile: it sends nothing to the card
/// afterwards.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeProgress(Arc<Mutex<ProgressState>>);

#[derive(Debug, Default)]
struct ProgressState {
    phase: ProbePhase,
    /// The last one without a response shows the command at which a card hangs.
    exchanges: Vec<ApduExchange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ProbePhase {
    /// Before a connection, or in a transaction.
    #[default]
    Free,
    Connecting,
    /// Connected, before the transaction.
    Starting,
    /// Abandoned while it waited, and still waiting.
    Abandoned,
    /// Abandoned, and not waiting any more.
    Ended,
}

impl ProbeProgress {
    /// Enters a phase; false once the probe was abandoned.
    pub(super) fn start(&self, phase: ProbePhase) -> bool {
        let mut state = self.lock();
        let is_abandoned = matches!(state.phase, ProbePhase::Abandoned | ProbePhase::Ended);
        if !is_abandoned {
            state.phase = phase;
        }
        !is_abandoned
    }

    /// Ends the wait of an abandoned probe: another one may follow.
    pub(super) fn end(&self) {
        self.lock().phase = ProbePhase::Ended;
    }

    pub(super) fn phase(&self) -> ProbePhase {
        self.lock().phase
    }

    /// Abandons the probe, if it waits; whether it did.
    pub(super) fn abandon(&self) -> bool {
        let mut state = self.lock();
        let waits = matches!(state.phase, ProbePhase::Connecting | ProbePhase::Starting);
        if waits {
            state.phase = ProbePhase::Abandoned;
        }
        waits
    }

    pub(super) fn begin_exchange(&self, command: &[u8]) {
        let (command, response) = (command.to_vec(), Vec::new());
        self.lock().exchanges.push(ApduExchange { command, response, duration: Duration::ZERO });
    }

    /// Notes the response to the last command, empty if there is none.
    fn end_exchange(&self, response: &[u8], duration: Duration) {
        if let Some(last) = self.lock().exchanges.last_mut() {
            last.response = response.to_vec();
            last.duration = duration;
        }
    }

    /// All exchanges, those before a restart included.
    pub(super) fn exchanges(&self) -> Vec<ApduExchange> {
        self.lock().exchanges.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct PcscTransport<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) protocol: Protocol,
    pub(super) reader: &'a ReaderName,
    /// No command is sent after this.
    pub(super) deadline: Instant,
    pub(super) halt: &'a CancelToken,
    pub(super) progress: &'a ProbeProgress,
    pub(super) shared: &'a SharedState,
    pub(super) identified: &'a mut dyn FnMut(&CardIdentity),
}

impl Transmit for PcscTransport<'_> {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let began = Instant::now();
        if began >= self.deadline || self.halt.is_cancelled() {
            return Err(TransmitError::TimedOut);
        }
        if self.progress.lock().exchanges.len() >= MAX_COMMANDS {
            let detail = format!("card lost its state again and again, in {MAX_COMMANDS} commands");
            return Err(TransmitError::Failed { detail });
        }
        let command = command.to_bytes(self.protocol);
        self.progress.begin_exchange(&command);
        let mut buffer = [0; MAX_BUFFER_SIZE];
        let response = self.transaction.transmit(&command, &mut buffer).map(<[u8]>::to_vec);
        let duration = began.elapsed();
        trace!(
            reader = %self.reader,
            command = hex::encode(&command),
            response = response.as_ref().map(hex::encode).unwrap_or_default(),
            error = response.as_ref().err().map(tracing::field::display),
            micros = duration.as_micros(),
            "APDU exchange"
        );
        self.progress.end_exchange(response.as_deref().unwrap_or_default(), duration);
        match response {
            // Some drivers report success when the card is removed during a command.
            Ok(response) if response.len() < MIN_RESPONSE => Err(TransmitError::Reset),
            Ok(response) => Ok(response),
            Err(error) => Err(to_transmit_error(self.shared.count(error))),
        }
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn identified(&mut self, identity: &CardIdentity) {
        (self.identified)(identity);
        if !identity.partial {
            self.deadline = self.deadline.min(Instant::now() + INVENTORY_TIMEOUT);
        }
    }
}

/// The protocol of the connection, which the crate does not return.
pub(super) fn agreed_protocol(
    transaction: &Transaction<'_>,
    shared: &SharedState,
) -> Result<Protocol, TransmitError> {
    let (mut name, mut atr) = ([0; NAME_SPACE], [0; pcsc::MAX_ATR_SIZE]);
    let status = transaction.status2(&mut name, &mut atr);
    let status = status.map_err(|error| to_transmit_error(shared.count(error)))?;
    supported(status.protocol2())
}

/// A connection has a protocol, so a status without one is of a moment before: below 2.0.3 the library's
/// threads overwrite each other's reader states. Another attempt helps.
fn supported(protocol: Option<pcsc::Protocol>) -> Result<Protocol, TransmitError> {
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
    fn status_without_protocol_restarts_probe() {
        assert_eq!(supported(None), Err(TransmitError::Reset));
        assert_eq!(supported(Some(pcsc::Protocol::T0)), Ok(Protocol::T0));
        let raw = supported(Some(pcsc::Protocol::RAW));
        assert!(matches!(raw, Err(TransmitError::Failed { .. })), "no card is spoken to so");
    }

    #[test]
    fn exchange_without_response_is_kept() {
        let progress = ProbeProgress::default();
        progress.begin_exchange(&[1]);
        progress.end_exchange(&[0x90, 0x00], Duration::from_millis(1));
        progress.clone().begin_exchange(&[2]);
        let exchanges: Vec<_> =
            progress.exchanges().into_iter().map(|e| (e.command, e.response)).collect();
        assert_eq!(exchanges, [(vec![1], vec![0x90, 0x00]), (vec![2], vec![])]);
    }

    #[test]
    fn abandoned_probe_enters_no_phase() {
        let progress = ProbeProgress::default();
        assert!(!progress.abandon(), "it does not wait");
        assert!(progress.start(ProbePhase::Connecting) && progress.start(ProbePhase::Starting));
        assert!(progress.clone().abandon());
        assert!(!progress.start(ProbePhase::Free));
        assert_eq!((progress.phase(), progress.abandon()), (ProbePhase::Abandoned, false));
        progress.end();
        assert_eq!(
            (progress.start(ProbePhase::Free), progress.phase(), progress.abandon()),
            (false, ProbePhase::Ended, false)
        );
    }

    #[test]
    fn probe_in_transaction_is_not_abandoned() {
        let progress = ProbeProgress::default();
        assert!(progress.start(ProbePhase::Starting) && progress.start(ProbePhase::Free));
        assert!(!progress.abandon());
    }
}
