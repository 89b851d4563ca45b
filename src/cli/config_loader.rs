//! The configuration's files and environment, read for [`crate::config`].

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{CommandError, Exit};
use crate::app::credential_path;
use crate::cm::{self, FileContents, FileFinding};
use crate::config::{
    ConfigInputs, ConfigProblem, ConfigProblems, ConfigText, LoadedConfig, NamedFile, Settings,
    UnreadableFile, named_files, parse,
};
use crate::domain::{
    Atr, AtrPattern, CmEnums, NotIdentified, ProbeSettings, ReaderName, ReaderRules, ReaderSettings,
};
use crate::readers::attributes;

/// How long a reader's driver may take to tell what it tells.
const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(2);

const DEFAULT: &str = "/etc/cardbridge/cardbridge.toml";
const DROP_INS: &str = "/etc/cardbridge/conf.d";

/// The configuration, whole and valid. A token may come later than the key that names its file:
/// that is a state, and no problem.
pub(super) fn load(config: Option<&Path>) -> Result<LoadedConfig, CommandError> {
    read_with(config, |file| file.key != "cm.auth.token_file")?
        .map_err(|problems| CommandError::message(Exit::Usage, problems.to_string()))
}

/// The configuration, or everything that is wrong with it and with the files that it names.
pub(super) fn checked(
    config: Option<&Path>,
) -> Result<Result<LoadedConfig, ConfigProblems>, CommandError> {
    let files = ConfigFiles::gather(config);
    let checked = read_with(config, |_| true)?;
    let (environment, host_name) = (environment()?, host_name());
    let named = named_files(&files.inputs(&environment, &host_name));
    let inside: Vec<_> = named.iter().filter_map(unusable_inside).collect();
    Ok(match checked {
        Err(problems) => Err(problems.with(inside)),
        Ok(loaded) => ConfigProblems::of(inside).map_or(Ok(loaded), Err),
    })
}

/// What is no reason not to start, and should be corrected: who else may read a secret, and what
/// surrounds it.
pub(super) fn warnings(config: Option<&Path>) -> Result<Vec<ConfigProblem>, CommandError> {
    let files = ConfigFiles::gather(config);
    let (environment, host_name) = (environment()?, host_name());
    let named = named_files(&files.inputs(&environment, &host_name));
    Ok(named.iter().flat_map(|file| exposed(file).into_iter().chain(padded_files(file))).collect())
}

fn read_with(
    config: Option<&Path>,
    must_be_there: impl Fn(&NamedFile) -> bool,
) -> Result<Result<LoadedConfig, ConfigProblems>, CommandError> {
    let files = ConfigFiles::gather(config);
    let (environment, host_name) = (environment()?, host_name());
    let inputs = files.inputs(&environment, &host_name);
    let named = named_files(&inputs).into_iter().filter(must_be_there);
    let unusable: Vec<_> = named.filter_map(unusable).collect();
    Ok(match parse(&inputs) {
        Err(problems) => Err(problems.with(unusable)),
        Ok(loaded) => ConfigProblems::of(unusable).map_or(Ok(loaded), Err),
    })
}

/// The settings for commands that ask the daemon: where the usual configuration is not for this
/// user's eyes, what the daemon has if its configuration says nothing of the control socket.
pub(super) fn settings_to_ask(config: Option<&Path>) -> Result<Settings, CommandError> {
    if named(config).is_none() && is_closed(Path::new(DEFAULT)) {
        return settings_of(&ConfigFiles { sources: Vec::new(), unread: Vec::new() });
    }
    settings_without_cm(config)
}

/// Whether a file is there, or may be, that this user must not read.
fn is_closed(file: &Path) -> bool {
    open(file).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The settings for commands that do without CM, and so without a configuration.
pub(super) fn settings_without_cm(config: Option<&Path>) -> Result<Settings, CommandError> {
    settings_of(&ConfigFiles::gather(config))
}

fn settings_of(files: &ConfigFiles) -> Result<Settings, CommandError> {
    let (environment, host_name) = (environment()?, host_name());
    let inputs = ConfigInputs { without_cm: true, ..files.inputs(&environment, &host_name) };
    let loaded = parse(&inputs);
    let loaded =
        loaded.map_err(|problems| CommandError::message(Exit::Usage, problems.to_string()))?;
    Ok(loaded.settings)
}

/// What is wrong with a file that a key names, before anybody looks into it.
fn unusable(file: NamedFile) -> Option<ConfigProblem> {
    let NamedFile { origin, key, path } = file;
    let problem = |what: String, remedy: &str| {
        Some(ConfigProblem {
            origin,
            key: key.to_owned(),
            message: what,
            remedy: remedy.to_owned(),
        })
    };
    let Ok(place) = credential_path(Path::new(&path)) else {
        let what = format!("{path:?} is a bare name, and $CREDENTIALS_DIRECTORY is not set");
        return problem(what, "use an absolute path, or run under systemd with LoadCredential=");
    };
    // What is wrong inside is told by those who use it.
    match open(&place) {
        Ok(_) => None,
        Err(error) => {
            let what = format!("cannot read {}: {error}", place.display());
            problem(what, "check that it is there and that the user cardbridge may read it")
        }
    }
}

/// What is wrong inside a file that a key names, where it can be read at all.
fn unusable_inside(file: &NamedFile) -> Option<ConfigProblem> {
    let place = credential_path(Path::new(&file.path)).ok()?;
    open(&place).ok()?;
    cm::unusable(file.key, &place).map(|finding| problem_of(file, finding))
}

/// Who else may read a file that a key names. What the service manager hands over is its own business.
fn exposed(file: &NamedFile) -> Option<ConfigProblem> {
    if !file.path.starts_with('/') {
        return None;
    }
    let finding = cm::exposed(file.key, Path::new(&file.path))?;
    Some(problem_of(file, finding))
}

/// What is sent with a secret in a file that a key names, and is hardly part of it.
fn padded_files(file: &NamedFile) -> Option<ConfigProblem> {
    let place = credential_path(Path::new(&file.path)).ok()?;
    cm::padded(file.key, &place).map(|finding| problem_of(file, finding))
}

fn problem_of(file: &NamedFile, finding: FileFinding) -> ConfigProblem {
    let FileFinding { message: what, remedy } = finding;
    ConfigProblem { origin: file.origin.clone(), key: file.key.to_owned(), message: what, remedy }
}

/// CM's numbers as this site has them, for words.
pub(super) fn numbers(config: Option<&Path>) -> Result<CmEnums, CommandError> {
    Ok(settings_to_ask(config)?.rules.numbers)
}

/// What commands about cards need to know, with or without a configuration.
pub(super) struct CardCommandSettings {
    pub(super) probing: ProbeSettings,
    pub(super) readers: ReaderRules,
    pub(super) skip_atr: Vec<AtrPattern>,
}

impl CardCommandSettings {
    pub(super) fn load(config: Option<&Path>) -> Result<Self, CommandError> {
        settings_without_cm(config).map(Self::from)
    }

    /// Why the card is not to be touched, if so.
    pub(super) fn skip_reason(&self, reader: &ReaderName, atr: &Atr) -> Option<NotIdentified> {
        NotIdentified::skipped_by_config(&self.place(reader), &self.skip_atr, atr)
    }

    /// What the configuration makes of a reader. Its driver is asked only where that matters.
    pub(super) fn place(&self, reader: &ReaderName) -> ReaderSettings {
        let asked = self.readers.need_attributes();
        let told = asked.then(|| attributes(reader, ATTRIBUTES_TIMEOUT));
        self.readers.settings_for(reader, &told.unwrap_or_default())
    }
}

impl From<Settings> for CardCommandSettings {
    fn from(Settings { probe: probing, readers, skip_atr, .. }: Settings) -> Self {
        Self { probing, readers, skip_atr }
    }
}

/// The configuration's files: those that were read, and those that were not.
struct ConfigFiles {
    sources: Vec<ConfigText>,
    unread: Vec<UnreadableFile>,
}

impl ConfigFiles {
    /// The main file; with the usual one, every drop-in beside it in name order. The usual one need
    /// not be there.
    fn gather(config: Option<&Path>) -> Self {
        let mut files = Self { sources: Vec::new(), unread: Vec::new() };
        if let Some(main) = named(config) {
            files.add(&main, &read(&main));
            return files;
        }
        let main = Path::new(DEFAULT);
        let text = match read(main) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text,
        };
        files.add(main, &text);
        files.add_drop_ins();
        files
    }

    fn add(&mut self, file: &Path, text: &io::Result<String>) {
        let name = file.display().to_string();
        match text {
            Ok(text) => self.sources.push(ConfigText { name, text: text.clone() }),
            Err(error) => self.unread.push(UnreadableFile {
                name,
                error: error.to_string(),
                remedy: error
                    .get_ref()
                    .and_then(|cause| cause.downcast_ref::<FileContents>())
                    .and_then(|holds| holds.remedy()),
            }),
        }
    }

    fn add_drop_ins(&mut self) {
        match drop_ins() {
            Ok(files) => files.iter().for_each(|file| self.add(file, &read(file))),
            Err(error) => self.add(Path::new(DROP_INS), &Err(error)),
        }
    }

    fn inputs<'a>(
        &'a self,
        environment: &'a [(String, String)],
        host_name: &'a str,
    ) -> ConfigInputs<'a> {
        let (sources, unread) = (&self.sources, &self.unread);
        ConfigInputs { sources, unread, environment, host_name, without_cm: false }
    }
}

/// The file that was named, by argument or environment.
fn named(config: Option<&Path>) -> Option<PathBuf> {
    let by_environment = || std::env::var_os("CARDBRIDGE_CONFIG").map(PathBuf::from);
    config.map(Path::to_owned).or_else(by_environment)
}

/// A file to read. A pipe could keep a daemon waiting that only wants to reload.
fn open(file: &Path) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(file)
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(file)?.read_to_end(&mut bytes)?;
    match cm::no_text(&bytes) {
        Some(holds) => Err(io::Error::other(holds)),
        None => String::from_utf8(bytes).map_err(|_| io::Error::other(FileContents::NoText)),
    }
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
    CommandError::message(Exit::Usage, format!("environment variable {variable} is not UTF-8 text"))
}

/// From the kernel and not from /proc, most of which a hardened service does not see.
fn host_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
