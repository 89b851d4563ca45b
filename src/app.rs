//! The daemon, which joins the engine with the edges.
//!
//! One loop: wait for an input, pass it to the engine, perform the engine's effects. Effects that
//! take time run beside the loop; their results come back as events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cm::CmClient;
use crate::config::Settings;
use crate::control::{Access, ControlRequest, ControlServer, EntryActionError, Groups};
use crate::domain::{BootMoment, CallMetrics, EntryId, Problem, ReaderEvent};
use crate::engine::{Engine, EngineSettings, Event, Now, RestoredState, RetryPolicy};
use crate::outbox::{self, Outbox, OutboxOptions};
use crate::readers::{ReaderOptions, Readers, boot_id};
use crate::telemetry::{ErrorChain, IdRedaction, Notifier};

mod audit_upkeep;
mod control_requests;
mod effects;
mod event_log;
mod systemd;

use audit_upkeep::CmDate;
use effects::CompletedEffect;
use systemd::ServiceNotifier;

pub(crate) use control_requests::{audit_filter, chain_cursor};

/// Longer than any card that responds at all, shorter than an operator's patience.
pub(crate) const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// Reads the configuration again.
pub(crate) type Reload = Box<dyn Fn() -> Result<Settings, String>>;

/// Runs the daemon until a signal stops it.
pub(crate) fn run(settings: Settings, reload: Reload) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(settings, reload));
    // A DNS lookup can block its thread for a minute.
    runtime.shutdown_background();
    result
}

async fn serve(settings: Settings, reload: Reload) -> anyhow::Result<()> {
    let signals = Signals::new().context("cannot listen for signals")?;
    let (outbox, contents) = outbox::open(outbox_options(&settings))?;
    event_log::damaged(&contents.damaged);
    event_log::repaired(contents.repaired.as_ref());
    let data_loss = control_requests::data_loss(&contents);
    let control = settings.control.clone();
    let groups = Groups { view: control.view_group, operator: control.operator_group };
    let access = Access::resolve(groups).await;
    let (mut server, requests) = ControlServer::bind(&control.socket, access)?;
    start_metrics_listener(&mut server, control.metrics_listen).await;
    let cm = cm_client(&settings)?;
    let (readers, reader_events) =
        Readers::start(reader_options(&settings)).context("cannot start the reader monitor")?;
    let restored = RestoredState {
        entries: contents.entries,
        last_seen: contents.last_seen,
        latest: contents.latest,
        moment: boot_moment(),
    };
    event_log::started(&settings, &restored);
    let (events, results) = mpsc::unbounded_channel();
    let (audit_retention, retention) = watch::channel(settings.audit.retention);
    let (cm_date, dates) = watch::channel(None);
    tokio::spawn(audit_upkeep::log_heads(outbox.clone()));
    tokio::spawn(audit_upkeep::prune(outbox.clone(), retention, dates));
    let seed = fastrand::u64(..);
    let lost = outbox.clone();
    let app = App {
        engine: Engine::new(engine_settings(&settings), restored, seed, now()),
        readers,
        outbox,
        cm,
        events,
        calls: CallMetrics::default(),
        pending_actions: BTreeMap::new(),
        data_loss,
        audit_retention,
        cm_date,
        ids: IdRedaction { show_full: settings.log.show_ids },
        started_at: Timestamp::now(),
        settings,
        reload,
    };
    let inputs = LoopInputs { signals, results, reader_events, requests };
    let service = ServiceNotifier::new(Notifier::from_environment());
    let result = tokio::select! {
        // First: a lost outbox is the error, and not the failure of an effect that met it.
        biased;
        () = lost.lost() => Err(anyhow::anyhow!("the outbox file was damaged, removed or replaced; see docs/troubleshoot.md, \"Outbox and disk\"")),
        app = app.work(inputs, service) => Ok(app),
    };
    drop(server);
    result.map(App::stop)
}

/// The daemon works without metrics: a port that is in use is logged.
async fn start_metrics_listener(server: &mut ControlServer, address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    match server.listen_metrics(address).await {
        Ok(address) => tracing::info!(%address, "Metrics listener started"),
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "Metrics listener could not start; /metrics stays on the control socket");
        }
    }
}

/// This moment since the machine's start; `None` if the boot has no id.
fn boot_moment() -> Option<BootMoment> {
    let since = clock_gettime(ClockId::Boottime);
    Some(BootMoment { boot: boot_id()?, seconds: u64::try_from(since.tv_sec).unwrap_or_default() })
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: Timestamp::now() }
}

struct App {
    engine: Engine,
    readers: Readers,
    outbox: Outbox,
    cm: CmClient,
    events: mpsc::UnboundedSender<CompletedEffect>,
    calls: CallMetrics,
    /// Clients that wait until their action is on disk.
    pending_actions: BTreeMap<EntryId, oneshot::Sender<Result<(), EntryActionError>>>,
    /// What the outbox lost before this start.
    data_loss: Option<String>,
    audit_retention: watch::Sender<Duration>,
    cm_date: watch::Sender<CmDate>,
    ids: IdRedaction,
    started_at: Timestamp,
    settings: Settings,
    reload: Reload,
}

impl App {
    async fn work(mut self, mut inputs: LoopInputs, mut service: ServiceNotifier) -> Self {
        service.ready(Instant::now());
        loop {
            while let Some(effect) = self.engine.poll_effect() {
                self.perform(effect);
            }
            service.on_loop_turn(Instant::now(), || self.snapshot());
            let due = [self.engine.poll_timeout(), service.due()].into_iter().flatten().min();
            match inputs.next(due).await {
                LoopInput::Reader(event) => {
                    event_log::log_reader_event(&event, self.ids);
                    self.engine.handle(Event::Reader(event), now());
                }
                LoopInput::Result(completed) => self.handle_completed(*completed),
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

    fn handle_completed(&mut self, CompletedEffect { event, duration }: CompletedEffect) {
        if let (Event::Cm(call), Some(duration)) = (&event, duration) {
            self.calls.count(call.operation, call.result.as_ref().err(), duration);
        }
        if let Some(date) = self.cm.last_date() {
            self.cm_date.send_replace(Some(date));
        }
        event_log::log_event(&event, self.ids);
        self.complete_action(&event);
        self.engine.handle(event, now());
    }

    /// An invalid configuration is logged, and the previous one stays.
    fn reload(&mut self) {
        let loaded = (self.reload)().and_then(|settings| match cm_client(&settings) {
            Ok(cm) => Ok((settings, cm)),
            Err(problem) => Err(problem.to_string()),
        });
        let (mut settings, cm) = match loaded {
            Ok(loaded) => loaded,
            Err(problems) => {
                tracing::error!(%problems, "Configuration reload failed; keeping the previous configuration");
                return;
            }
        };
        for key in keep_restart_only_settings(&self.settings, &mut settings) {
            tracing::warn!(key, "Changed setting takes effect after a restart");
        }
        self.cm = cm;
        self.readers.set_probing(settings.probe.clone());
        self.ids = IdRedaction { show_full: settings.log.show_ids };
        self.audit_retention.send_replace(settings.audit.retention);
        self.engine.handle(Event::Reconfigured(Box::new(engine_settings(&settings))), now());
        self.settings = settings;
        tracing::info!("Configuration reloaded");
    }

    /// Stops the edges. What is in flight is on disk, and continues at the next start.
    fn stop(self) {
        let Self { mut engine, readers, outbox, .. } = self;
        for line in engine.take_unwritten_counts(now()) {
            // Closing waits for it.
            drop(outbox.append_audit(line));
        }
        drop(engine);
        readers.stop();
        outbox.close();
        tracing::info!("Daemon stopped");
    }
}

/// What the loop waits for. Results are unbounded: each is that of one effect.
struct LoopInputs {
    signals: Signals,
    results: mpsc::UnboundedReceiver<CompletedEffect>,
    reader_events: mpsc::UnboundedReceiver<ReaderEvent>,
    requests: mpsc::Receiver<ControlRequest>,
}

enum LoopInput {
    Reader(ReaderEvent),
    Result(Box<CompletedEffect>),
    Request(ControlRequest),
    Due,
    Reload,
    Stop,
}

impl LoopInputs {
    async fn next(&mut self, due: Option<Instant>) -> LoopInput {
        let timer = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.signals.terminate.recv() => LoopInput::Stop,
            _ = self.signals.interrupt.recv() => LoopInput::Stop,
            _ = self.signals.hang_up.recv() => LoopInput::Reload,
            Some(completed) = self.results.recv() => LoopInput::Result(Box::new(completed)),
            Some(event) = self.reader_events.recv() => LoopInput::Reader(event),
            Some(request) = self.requests.recv() => LoopInput::Request(request),
            () = timer => LoopInput::Due,
        }
    }
}

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
}

fn engine_settings(settings: &Settings) -> EngineSettings {
    EngineSettings {
        station: settings.station.clone(),
        rules: settings.rules.clone(),
        readers: settings.readers.clone(),
        skip_atr: settings.skip_atr.clone(),
        concurrency: settings.cm.concurrency,
        retry: RetryPolicy { min: settings.outbox.retry_min, max: settings.outbox.retry_max },
        max_age: settings.outbox.max_age,
        probe_deadline: PROBE_DEADLINE,
    }
}

pub(crate) fn outbox_options(settings: &Settings) -> OutboxOptions {
    OutboxOptions {
        path: settings.outbox.path.clone(),
        max_entries: settings.outbox.max_entries,
        station: settings.station.clone(),
        now: Timestamp::now(),
    }
}

pub(crate) fn reader_options(settings: &Settings) -> ReaderOptions {
    ReaderOptions { probing: settings.probe.clone(), probe_deadline: PROBE_DEADLINE }
}

/// A client of CM; nothing is sent.
pub(crate) fn cm_client(settings: &Settings) -> Result<CmClient, Problem> {
    let mut cm = settings.cm.clone();
    for path in cm.credential_paths() {
        *path = credential_path(path)?;
    }
    CmClient::new(cm, settings.rules.numbers.clone())
}

/// The path of a `*_file`: a bare name is a file in the directory of systemd's credentials.
pub(crate) fn credential_path(file: &Path) -> Result<PathBuf, Problem> {
    if file.is_absolute() {
        return Ok(file.to_owned());
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        Problem::new(
            "a `*_file` key names a systemd credential, but $CREDENTIALS_DIRECTORY is not set",
            "use an absolute path, or run under systemd with LoadCredential=",
        )
    })?;
    Ok(Path::new(&directory).join(file))
}

/// Keeps what a running daemon cannot change, and returns the keys that changed.
fn keep_restart_only_settings(old: &Settings, new: &mut Settings) -> Vec<&'static str> {
    fn keep<T: PartialEq + Clone>(old: &T, new: &mut T) -> bool {
        let changed = old != new;
        new.clone_from(old);
        changed
    }
    let changes = [
        ("station.id", keep(&old.station, &mut new.station)),
        ("outbox.path", keep(&old.outbox.path, &mut new.outbox.path)),
        ("outbox.max_entries", keep(&old.outbox.max_entries, &mut new.outbox.max_entries)),
        ("control.socket", keep(&old.control.socket, &mut new.control.socket)),
        ("control.view_group", keep(&old.control.view_group, &mut new.control.view_group)),
        (
            "control.operator_group",
            keep(&old.control.operator_group, &mut new.control.operator_group),
        ),
        (
            "control.metrics_listen",
            keep(&old.control.metrics_listen, &mut new.control.metrics_listen),
        ),
        ("log.level", keep(&old.log.level, &mut new.log.level)),
        ("log.format", keep(&old.log.format, &mut new.log.format)),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}
