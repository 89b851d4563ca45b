//! The configuration's files and environment, read for [`crate::config`].

use std::io;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use crate::config::{Inputs, Loaded, Settings, Source, parse};
use crate::domain::{Atr, AtrPattern, NotIdentified, Numbers, Probing, ReaderName, ReaderRules};

const DEFAULT: &str = "/etc/cardbridge/cardbridge.toml";
const DROP_INS: &str = "/etc/cardbridge/conf.d";

/// The configuration, whole and valid.
pub(super) fn load(config: Option<&Path>) -> Result<Loaded, Failure> {
    let sources = sources(config).map_err(|error| Failure::new(Exit::Usage, error))?;
    let host_name = host_name();
    let inputs = Inputs { sources: &sources, environment: &environment()?, host_name: &host_name };
    parse(&inputs).map_err(|problems| Failure::message(Exit::Usage, problems.to_string()))
}

/// The settings, where there is a configuration at all: some commands do without.
pub(super) fn settings_if_any(config: Option<&Path>) -> Result<Option<Settings>, Failure> {
    if config.is_none() && !chosen(None).exists() {
        return Ok(None);
    }
    load(config).map(|loaded| Some(loaded.settings))
}

/// CM's numbers as this site has them, for words.
pub(super) fn numbers(config: Option<&Path>) -> Result<Numbers, Failure> {
    Ok(settings_if_any(config)?.map_or_else(Numbers::default, |settings| settings.rules.numbers))
}

/// What commands about cards need to know, with or without a configuration.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) probing: Probing,
    pub(super) readers: ReaderRules,
    pub(super) skip_atr: Vec<AtrPattern>,
}

impl Desk {
    pub(super) fn load(config: Option<&Path>) -> Result<Self, Failure> {
        Ok(settings_if_any(config)?.map_or_else(Self::default, Self::from))
    }

    /// Why the card is not to be touched, if so.
    pub(super) fn leaves_alone(&self, reader: &ReaderName, atr: &Atr) -> Option<NotIdentified> {
        NotIdentified::left_alone(&self.readers.place(reader), &self.skip_atr, atr)
    }
}

impl From<Settings> for Desk {
    fn from(Settings { probing, readers, skip_atr, .. }: Settings) -> Self {
        Self { probing, readers, skip_atr }
    }
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", .0.display())]
struct Unreadable(PathBuf, #[source] io::Error);

/// The file that was named, by argument or environment, or the usual one.
fn chosen(config: Option<&Path>) -> PathBuf {
    let named = config.map(Path::to_owned);
    named
        .or_else(|| std::env::var_os("CARDBRIDGE_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT))
}

/// The main file; with the usual one, every drop-in beside it in name order.
fn sources(config: Option<&Path>) -> Result<Vec<Source>, Unreadable> {
    let main = chosen(config);
    let mut files = vec![main.clone()];
    if main == Path::new(DEFAULT) {
        files.extend(drop_ins()?);
    }
    files
        .into_iter()
        .map(|file| match read(&file) {
            Ok(text) => Ok(Source { name: file.display().to_string(), text }),
            Err(error) => Err(Unreadable(file, error)),
        })
        .collect()
}

/// A file's text. A pipe could keep a daemon waiting that only wants to reload.
fn read(file: &Path) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    std::fs::read_to_string(file)
}

fn drop_ins() -> Result<Vec<PathBuf>, Unreadable> {
    let unreadable = |error| Unreadable(PathBuf::from(DROP_INS), error);
    let entries = match std::fs::read_dir(DROP_INS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let files: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files = files.map_err(unreadable)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

fn environment() -> Result<Vec<(String, String)>, Failure> {
    let ours =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARDBRIDGE_"));
    ours.map(|(name, value)| match (name.into_string(), value.into_string()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Ok(name), Err(_)) => Err(not_text(&name)),
        (Err(name), _) => Err(not_text(&name.to_string_lossy())),
    })
    .collect()
}

fn not_text(variable: &str) -> Failure {
    Failure::message(Exit::Usage, format!("environment variable {variable} is not UTF-8 text"))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
