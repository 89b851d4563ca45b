//! The configuration's files and environment, read for [`crate::config`]; and `config`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{CommandError, Exit, Output};
use super::render::{row, table};
use crate::app::{self, credential_path};
use crate::cm;
use crate::config::{
    ConfigInputs, ConfigProblem, ConfigProblems, ConfigText, LoadedConfig, NamedFile, Settings,
    UnreadableFile, named_files, parse,
};
use crate::domain::Problem;

const DEFAULT: &str = "/etc/cardbridge/cardbridge.toml";
const DROP_INS: &str = "/etc/cardbridge/conf.d";

/// The valid configuration. A token file may appear later than the key that names it.
pub(super) fn load(config: Option<&Path>) -> Result<LoadedConfig, CommandError> {
    let sources = Sources::read(config)?;
    let files = sources.named_files().into_iter().filter(|file| file.key != "cm.auth.token_file");
    sources.parse(files.filter_map(unreadable).collect()).map_err(|problems| usage(&problems))
}

/// The configuration or all its errors, those in the files that it names included; and warnings:
/// which other users can read a secret, and white space around it.
pub(super) struct CheckedConfig {
    pub(super) result: Result<LoadedConfig, ConfigProblems>,
    pub(super) warnings: Vec<ConfigProblem>,
}

impl CheckedConfig {
    pub(super) fn read(config: Option<&Path>) -> Result<Self, CommandError> {
        let sources = Sources::read(config)?;
        let files = sources.named_files();
        let unreadable = files.iter().cloned().filter_map(unreadable);
        let problems = unreadable.chain(files.iter().filter_map(unusable)).collect();
        let warnings = files.iter().flat_map(|file| exposed(file).into_iter().chain(padded(file)));
        Ok(Self { result: sources.parse(problems), warnings: warnings.collect() })
    }
}

/// The settings for commands that ask the daemon. A user who may not read the default
/// configuration uses the default settings, and so the default control socket.
pub(super) fn settings_for_daemon(config: Option<&Path>) -> Result<Settings, CommandError> {
    let is_denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if named(config).is_none() && open(Path::new(DEFAULT)).is_err_and(is_denied) {
        return Sources::environment()?.settings_without_cm();
    }
    settings_without_cm(config)
}

/// The settings for commands that do not need CM, and so no configuration.
pub(super) fn settings_without_cm(config: Option<&Path>) -> Result<Settings, CommandError> {
    Sources::read(config)?.settings_without_cm()
}

/// Why a file that a key names cannot be opened.
fn unreadable(file: NamedFile) -> Option<ConfigProblem> {
    let problem = match credential_path(Path::new(&file.path)) {
        Err(_) => Problem::new(
            format!("{:?} is a bare name, and $CREDENTIALS_DIRECTORY is not set", file.path),
            "use an absolute path, or run under systemd with LoadCredential=",
        ),
        Ok(path) => Problem::new(
            format!("cannot read {}: {}", path.display(), open(&path).err()?),
            "check that it is there and that the user cardbridge may read it",
        ),
    };
    let NamedFile { origin, key, .. } = file;
    Some(ConfigProblem { origin, key: key.to_owned(), problem })
}

/// Why the contents of a readable file are unusable.
fn unusable(file: &NamedFile) -> Option<ConfigProblem> {
    let path = credential_path(Path::new(&file.path)).ok()?;
    open(&path).ok()?;
    cm::unusable(file.key, &path).map(|problem| in_file(file, problem))
}

/// Which other users can read a file. systemd's credentials are systemd's business.
fn exposed(file: &NamedFile) -> Option<ConfigProblem> {
    let is_ours = file.path.starts_with('/');
    let problem = is_ours.then(|| cm::exposed(file.key, Path::new(&file.path))).flatten();
    problem.map(|problem| in_file(file, problem))
}

/// White space around a secret.
fn padded(file: &NamedFile) -> Option<ConfigProblem> {
    let path = credential_path(Path::new(&file.path)).ok()?;
    cm::padded(file.key, &path).map(|problem| in_file(file, problem))
}

fn in_file(file: &NamedFile, problem: Problem) -> ConfigProblem {
    ConfigProblem { origin: file.origin.clone(), key: file.key.to_owned(), problem }
}

fn usage(problems: &ConfigProblems) -> CommandError {
    CommandError::new(Exit::Usage, problems.to_string())
}

/// Where settings come from: files that were read, files that were not, and the environment.
struct Sources {
    files: Vec<ConfigText>,
    unreadable: Vec<UnreadableFile>,
    environment: Vec<(String, String)>,
    host_name: String,
}

impl Sources {
    /// The environment alone.
    fn environment() -> Result<Self, CommandError> {
        let (files, unreadable) = (Vec::new(), Vec::new());
        Ok(Self { files, unreadable, environment: environment()?, host_name: host_name() })
    }

    /// The named file; or the default file, which may be missing, and every drop-in by name.
    fn read(config: Option<&Path>) -> Result<Self, CommandError> {
        let mut sources = Self::environment()?;
        if let Some(main) = named(config) {
            sources.add(&main, read(&main));
            return Ok(sources);
        }
        let main = Path::new(DEFAULT);
        match read(main) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sources.add(main, Ok(String::new()));
            }
            text => sources.add(main, text),
        }
        match drop_ins() {
            Ok(files) => files.iter().for_each(|file| sources.add(file, read(file))),
            Err(error) => sources.add(Path::new(DROP_INS), Err(error)),
        }
        Ok(sources)
    }

    fn add(&mut self, file: &Path, text: io::Result<String>) {
        let name = file.display().to_string();
        match text {
            Ok(text) => self.files.push(ConfigText { name, text }),
            Err(error) => {
                // `read` says what the content is instead of text.
                let (what, remedy) = match error.get_ref().and_then(|cause| cause.downcast_ref()) {
                    Some(Problem { what, remedy }) => (what.clone(), remedy.as_str()),
                    None => {
                        (error.to_string(), "check that it is there and that this user may read it")
                    }
                };
                let problem = Problem::new(format!("cannot be read: {what}"), remedy);
                self.unreadable.push(UnreadableFile { name, problem });
            }
        }
    }

    fn inputs(&self) -> ConfigInputs<'_> {
        ConfigInputs {
            sources: &self.files,
            unread: &self.unreadable,
            environment: &self.environment,
            host_name: &self.host_name,
            without_cm: false,
        }
    }

    fn named_files(&self) -> Vec<NamedFile> {
        named_files(&self.inputs())
    }

    /// The configuration, unless it or a file that it names has a problem.
    fn parse(&self, in_files: Vec<ConfigProblem>) -> Result<LoadedConfig, ConfigProblems> {
        match parse(&self.inputs()) {
            Err(problems) => Err(problems.with(in_files)),
            Ok(loaded) => ConfigProblems::of(in_files).map_or(Ok(loaded), Err),
        }
    }

    fn settings_without_cm(&self) -> Result<Settings, CommandError> {
        let inputs = ConfigInputs { without_cm: true, ..self.inputs() };
        parse(&inputs).map(|loaded| loaded.settings).map_err(|problems| usage(&problems))
    }
}

/// The file that the argument or the environment names.
fn named(config: Option<&Path>) -> Option<PathBuf> {
    let by_environment = || std::env::var_os("CARDBRIDGE_CONFIG").map(PathBuf::from);
    config.map(Path::to_owned).or_else(by_environment)
}

/// Opens a regular file: a pipe could block a daemon that reloads.
fn open(file: &Path) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(file)
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(file)?.read_to_end(&mut bytes)?;
    cm::utf8(bytes).map_err(io::Error::other)
}

fn drop_ins() -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(DROP_INS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

fn environment() -> Result<Vec<(String, String)>, CommandError> {
    let ours =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARDBRIDGE_"));
    ours.map(|(name, value)| match (name.into_string(), value.into_string()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Ok(name), Err(_)) => Err(not_text(&name)),
        (Err(name), _) => Err(not_text(&name.to_string_lossy())),
    })
    .collect()
}

fn not_text(variable: &str) -> CommandError {
    CommandError::new(Exit::Usage, format!("environment variable {variable} is not UTF-8 text"))
}

/// From the kernel, since a hardened service sees little of /proc.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().trim().to_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// `config check`
pub(super) fn check(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let CheckedConfig { result, warnings } = CheckedConfig::read(config)?;
    let problems: Vec<String> = match &result {
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
        Ok(loaded) => {
            app::cm_client(&loaded.settings).err().iter().map(ToString::to_string).collect()
        }
    };
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let valid = result.ok().filter(|_| problems.is_empty()).map(|loaded| loaded.settings.station);
    let exit = if valid.is_some() { Exit::Success } else { Exit::Usage };
    let json = match &valid {
        Some(station) => json!({ "ok": true, "station": station, "warnings": warnings }),
        None => json!({ "ok": false, "problems": problems, "warnings": warnings }),
    };
    out.value(&json, || {
        let mut lines: Vec<_> = warnings.iter().map(|text| format!("warning: {text}")).collect();
        lines.extend(valid.map(|_| "The configuration is valid.".to_owned()));
        lines
    })?;
    if exit == Exit::Success || out.is_json() {
        return Ok(exit);
    }
    Err(CommandError::new(exit, problems.join("\n")))
}

/// `config show`
pub(super) fn show(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let effective = load(config)?.effective;
    let keys = effective.iter();
    let json: Vec<_> = keys
        .clone()
        .map(|e| json!({ "key": e.key, "value": e.value, "origin": e.origin.to_string() }))
        .collect();
    let text = keys.map(|e| row(&format!("{} = {}", e.key, e.value), format!("# {}", e.origin)));
    out.value(&json, || table(&text.collect::<Vec<_>>()))?;
    Ok(Exit::Success)
}
