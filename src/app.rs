//! The daemon: the only place that knows every edge.
//!
//! One loop in three beats: wait for one thing, let the engine take it in, do what the engine
//! wants done. Effects that take time run beside the loop and come back as events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cm::CmClient;
use crate::config::{ControlSettings, Settings};
use crate::control::{self, Access, ControlServer, EntryActionError, Groups};
use crate::domain::{CallMetrics, EntryId, ReaderEvent};
use crate::engine::{Engine, Event, Now, RestoredState};
use crate::outbox::{self, Outbox};
use crate::readers::Readers;
use crate::telemetry::{ErrorChain, IdRedaction, Notifier};

mod audit_heads;
mod audit_pruning;
mod clock;
mod control_requests;
mod convert;
mod effects;
mod event_log;
mod systemd;

use effects::CompletedEffect;
use systemd::ServiceNotifier;

pub(crate) use control_requests::{audit_filter, chain_cursor};
pub(crate) use convert::outbox_options;
pub use convert::{credential_path, reader_options, remote};

/// How long a card may take to be read before the reader is given up on: longer than any card
/// that answers at all, shorter than an operator's patience.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// Reads the configuration again; the error is for people.
pub type Reload = Box<dyn Fn() -> Result<Settings, String>>;

/// Runs the daemon until it is told to stop.
pub fn run(settings: Settings, reload: Reload) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(serve(settings, reload));
    // A name that is being looked up can hold its thread for a minute; nobody waits for the answer.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: Settings, reload: Reload) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let (outbox, restored) = outbox::open(outbox_options(&settings))?;
    event_log::damaged(&restored.damaged);
    event_log::mended(restored.repaired.as_ref());
    let damage = control_requests::damage(&restored);
    let (mut server, requests) =
        ControlServer::bind(&settings.control.socket, access(&settings).await)?;
    start_metrics_listener(&mut server, settings.control.metrics_listen).await;
    let remote = remote(&settings)?;
    let (readers, observations) =
        Readers::start(reader_options(&settings)).context("cannot start the reader monitor")?;
    let restored = RestoredState {
        entries: restored.entries,
        last_seen: restored.last_seen,
        latest: restored.latest,
        moment: clock::boot_moment(),
    };
    event_log::started(&settings, &restored);
    let (events, results) = mpsc::unbounded_channel();
    let (keep, kept) = watch::channel(settings.audit.retention);
    let (cm_date, dates) = watch::channel(None);
    tokio::spawn(audit_heads::log(outbox.clone()));
    tokio::spawn(audit_pruning::prune(outbox.clone(), kept, dates));
    let app = App {
        engine: Engine::new(
            convert::engine_settings(&settings),
            restored,
            fastrand::u64(..),
            now(),
        ),
        readers,
        outbox,
        cm: remote,
        events,
        calls: CallMetrics::default(),
        pending_actions: BTreeMap::new(),
        data_loss: damage,
        audit_retention: keep,
        cm_date,
        ids: IdRedaction { show_full: settings.log.show_ids },
        started_at: Timestamp::now(),
        settings,
        reload,
    };
    let inputs = LoopInputs { observations, results, requests };
    let service = ServiceNotifier::new(Notifier::from_environment());
    let lost = app.outbox.clone();
    let ended = tokio::select! {
        // First: a lost outbox is told once, as that, and not as the failure of whatever found it.
        biased;
        () = lost.lost() => Err(anyhow::anyhow!("the outbox file was damaged, removed or replaced; see docs/troubleshoot.md, \"Outbox and disk\"")),
        app = app.work(inputs, &mut signals, service) => Ok(app),
    };
    drop(server);
    ended.map(App::stop)
}

/// Who may do what on the control socket.
async fn access(settings: &Settings) -> Access {
    let ControlSettings { view_group, operator_group, .. } = settings.control.clone();
    Access::resolve(Groups { view: view_group, operator: operator_group }).await
}

/// Counters are no reason not to work on cards: a port that cannot be had is told, and left.
async fn start_metrics_listener(server: &mut ControlServer, address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    match server.listen_metrics(address).await {
        Ok(address) => tracing::info!(%address, "Metrics listener started"),
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "Metrics listener could not start; /metrics stays on the control socket");
        }
    }
}

/// What the loop waits for. Events are unbounded: each is the answer to one effect.
struct LoopInputs {
    observations: mpsc::UnboundedReceiver<ReaderEvent>,
    results: mpsc::UnboundedReceiver<CompletedEffect>,
    requests: mpsc::Receiver<control::ControlRequest>,
}

/// One thing that the loop waited for.
enum LoopInput {
    Observation(ReaderEvent),
    Result(Box<CompletedEffect>),
    Request(control::ControlRequest),
    Due,
    Reload,
    Stop,
}

struct App {
    engine: Engine,
    readers: Readers,
    outbox: Outbox,
    cm: CmClient,
    events: mpsc::UnboundedSender<CompletedEffect>,
    calls: CallMetrics,
    /// People who wait to hear that their wish for an entry is on disk.
    pending_actions: BTreeMap<EntryId, oneshot::Sender<Result<(), EntryActionError>>>,
    /// What the outbox lost before this start, in words.
    data_loss: Option<String>,
    /// How long audit lines are kept.
    audit_retention: watch::Sender<Duration>,
    /// The last date that CM told.
    cm_date: watch::Sender<audit_pruning::CmDate>,
    ids: IdRedaction,
    started_at: Timestamp,
    settings: Settings,
    reload: Reload,
}

impl App {
    async fn work(
        mut self,
        mut inputs: LoopInputs,
        signals: &mut Signals,
        mut service: ServiceNotifier,
    ) -> Self {
        service.ready(Instant::now());
        loop {
            while let Some(effect) = self.engine.poll_effect() {
                self.perform(effect);
            }
            service.on_loop_turn(Instant::now(), || self.snapshot());
            let due = [self.engine.poll_timeout(), service.due()].into_iter().flatten().min();
            match next(&mut inputs, signals, due).await {
                LoopInput::Observation(observation) => {
                    event_log::log_reader_event(&observation, self.ids);
                    self.engine.handle(Event::Reader(observation), now());
                }
                LoopInput::Result(done) => self.handle_completed(*done),
                LoopInput::Request(request) => self.answer(request),
                LoopInput::Due => self.engine.handle_timeout(now()),
                LoopInput::Reload => {
                    service.reloading();
                    self.reload();
                    service.reloaded();
                }
                LoopInput::Stop => {
                    service.stopping();
                    return self;
                }
            }
        }
    }

    fn handle_completed(&mut self, done: CompletedEffect) {
        if let (Event::Cm(call), Some(duration)) = (&done.event, done.duration) {
            self.calls.count(call.operation, call.result.as_ref().err(), duration);
        }
        if let Some(date) = self.cm.last_date() {
            self.cm_date.send_replace(Some(date));
        }
        let event = done.event;
        event_log::log_event(&event, self.ids);
        self.complete_action(&event);
        self.engine.handle(event, now());
    }

    /// A bad configuration is told and the old one stays.
    fn reload(&mut self) {
        let mut fresh = match (self.reload)() {
            Ok(settings) => settings,
            Err(problems) => {
                tracing::error!(%problems, "Configuration reload failed; keeping the previous configuration");
                return;
            }
        };
        match remote(&fresh) {
            Ok(remote) => self.cm = remote,
            Err(error) => {
                tracing::error!(%error, "Configuration reload failed; keeping the previous configuration");
                return;
            }
        }
        for key in convert::keep_restart_only_settings(&self.settings, &mut fresh) {
            tracing::warn!(key, "Changed setting takes effect after a restart");
        }
        self.readers.set_probing(fresh.probe.clone());
        self.ids = IdRedaction { show_full: fresh.log.show_ids };
        self.audit_retention.send_replace(fresh.audit.retention);
        self.engine.handle(Event::Reconfigured(Box::new(convert::engine_settings(&fresh))), now());
        self.settings = fresh;
        tracing::info!("Configuration reloaded");
    }

    /// Ends the edges. What is in flight is on disk and goes on at the next start.
    fn stop(self) {
        let Self { mut engine, readers, outbox, .. } = self;
        for line in engine.take_unwritten_counts(now()) {
            // Whether it is on disk nobody can act on any more; closing waits for it.
            drop(outbox.append_audit(line));
        }
        drop(engine);
        readers.stop();
        outbox.close();
        tracing::info!("Daemon stopped");
    }
}

async fn next(inputs: &mut LoopInputs, signals: &mut Signals, due: Option<Instant>) -> LoopInput {
    let timer = async {
        match due {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        input = signals.next() => input,
        Some(done) = inputs.results.recv() => LoopInput::Result(Box::new(done)),
        Some(observation) = inputs.observations.recv() => LoopInput::Observation(observation),
        Some(request) = inputs.requests.recv() => LoopInput::Request(request),
        () = timer => LoopInput::Due,
    }
}

/// The signals that a service is told by.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> LoopInput {
        tokio::select! {
            _ = self.terminate.recv() => LoopInput::Stop,
            _ = self.interrupt.recv() => LoopInput::Stop,
            _ = self.hang_up.recv() => LoopInput::Reload,
        }
    }
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: Timestamp::now() }
}
