//! `audit verify`: whether the audit trail is what was written.

use std::path::Path;

use serde::Serialize;

use super::cards::block_on;
use super::exit::{CommandError, Exit};
use super::outbox::open_offline;
use super::output::Output;
use super::recorded_hash::{HashComparison, HashFinding, RecordedHash};
use super::status::client;
use super::text::time;
use crate::app::chain_cursor;
use crate::control::{ControlClient, ControlError};
use crate::domain::{ChainBatch, ChainFault, ChainPosition};
use crate::outbox::ReadOnlyOutbox;
use crate::wire::control::{MarkQuery, VerifyQuery};

/// What the pieces of the chain come to.
#[derive(Debug, Default, Serialize)]
struct ChainReport {
    ok: bool,
    lines: u64,
    anchor: Option<ChainPosition>,
    head: Option<ChainPosition>,
    faults: Vec<ChainFault>,
    /// What became of each head that was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    against: Vec<HashComparison>,
}

impl ChainReport {
    /// A trail that is not what it was outweighs a head that tells nothing.
    fn exit(&self) -> Exit {
        let found = self.against.iter().map(|heard| heard.found.exit());
        let faults = (!self.faults.is_empty()).then_some(Exit::Failed);
        let all: Vec<_> = found.chain(faults).filter(|exit| *exit != Exit::Done).collect();
        if all.contains(&Exit::Failed) {
            return Exit::Failed;
        }
        all.first().copied().unwrap_or(Exit::Done)
    }
}

/// Who looks along the chain.
enum ChainSource {
    Daemon(ControlClient),
    Disk(ReadOnlyOutbox),
}

impl ChainSource {
    fn mark(&self, seq: i64) -> Result<Option<ChainPosition>, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.mark(&MarkQuery { seq }).await?) }),
            Self::Disk(store) => {
                store.mark(seq).map_err(|error| CommandError::new(Exit::Failed, error))
            }
        }
    }

    fn piece(&self, query: &VerifyQuery) -> Result<ChainBatch, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.verify(query).await?) }),
            Self::Disk(store) => {
                let failed = |error: anyhow::Error| CommandError::new(Exit::Failed, error);
                let after = chain_cursor(query).map_err(|error| failed(error.into()))?;
                store.verify(after.as_ref()).map_err(|error| failed(error.into()))
            }
        }
    }
}

pub(super) fn verify(
    config: Option<&Path>,
    witnesses: &[RecordedHash],
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let verdict = verify_chain(config, witnesses)?;
    let exit = verdict.exit();
    if out.is_json() {
        return out.value(&verdict).map(|_| exit);
    }
    for line in as_text(&verdict) {
        out.line(&line)?;
    }
    Ok(exit)
}

fn verify_chain(
    config: Option<&Path>,
    witnesses: &[RecordedHash],
) -> Result<ChainReport, CommandError> {
    let (source, mut piece) = first_piece(config)?;
    let mut verdict = ChainReport::default();
    loop {
        verdict.lines += piece.lines;
        verdict.faults.append(&mut piece.faults);
        (verdict.anchor, verdict.head) = (piece.anchor, piece.head);
        let Some(after) = piece.next else { break };
        piece = source.piece(&VerifyQuery { after: Some(after) })?;
    }
    verdict.ok = verdict.faults.is_empty();
    for witness in witnesses {
        let line = source.mark(witness.seq)?;
        let (anchor, head) = (verdict.anchor.as_ref(), verdict.head.as_ref());
        let heard = witness.compare(anchor, head, line.as_ref());
        verdict.ok &= heard.found == HashFinding::Same;
        verdict.against.push(heard);
    }
    Ok(verdict)
}

/// The running daemon, or the file of one that does not run.
fn first_piece(config: Option<&Path>) -> Result<(ChainSource, ChainBatch), CommandError> {
    let client = client(config)?;
    match block_on(async { Ok(client.verify(&VerifyQuery::default()).await) })? {
        Ok(piece) => Ok((ChainSource::Daemon(client), piece)),
        Err(error @ ControlError::NotRunning(..)) => {
            let source = ChainSource::Disk(open_offline(config)?.ok_or(error)?);
            let piece = source.piece(&VerifyQuery::default())?;
            Ok((source, piece))
        }
        Err(error) => Err(error.into()),
    }
}

fn as_text(verdict: &ChainReport) -> Vec<String> {
    let mut lines: Vec<_> = verdict.faults.iter().map(ToString::to_string).collect();
    let count = verdict.lines;
    lines.push(if verdict.faults.is_empty() {
        format!("Audit chain verified: {count} lines.")
    } else {
        format!("Audit chain broken: {} faults in {count} lines.", verdict.faults.len())
    });
    if let Some(ChainPosition { seq, at: Some(at), .. }) = &verdict.anchor {
        lines.push(format!("Pruned up to line {seq} ({}).", time(*at)));
    }
    if let Some(ChainPosition { seq, hash, .. }) = &verdict.head {
        lines.push(format!("Last line: {seq}, hash {hash}."));
    }
    lines.extend(verdict.against.iter().map(HashComparison::as_text));
    lines
}
