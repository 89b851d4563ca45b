//! The command line: its arguments, and the command that they name.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::app;
use crate::config::{Level, LogFormat, LogSettings};
use crate::control::EntryAction;
use crate::domain::{CardId, EntryId};
use crate::telemetry::{self, IdRedaction, LevelFilter, LogOutput};

mod atr;
mod audit;
mod audit_verify;
mod cards;
mod check;
mod config_loader;
mod daemon;
mod lookup;
mod output;
mod render;
mod scan;

use audit::{AuditArguments, AuditCommand};
use output::{CommandError, Exit, Output};

/// Watches smart card readers and executes approved CM requests for inserted cards (Microsoft
/// Identity Manager Certificate Management).
///
/// Exit codes: 0 success; 1 failure; 2 usage or configuration error; 3 pcscd, CM or the daemon
/// unreachable; 4 access denied or refused by CM.
#[derive(Debug, Parser)]
#[command(name = "cardbridge", version, about, long_about, max_term_width = 100)]
struct Arguments {
    /// Configuration file [default: /etc/cardbridge/cardbridge.toml plus conf.d/*.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON (scan and audit: one object per line)
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    ///
    /// SIGTERM and SIGINT stop it; SIGHUP reloads the configuration.
    Run,
    /// Show reader and card events; does not contact CM
    Scan {
        /// Print the current state and exit
        #[arg(long)]
        once: bool,
    },
    /// Identify the card in a reader and show all candidate ids; queries CM if it is configured
    Read {
        #[command(flatten)]
        reader: ReaderArgument,
        /// Print all APDUs
        #[arg(long)]
        trace: bool,
    },
    /// Show the card's CM record and requests and what the rules would do; changes nothing
    Lookup {
        #[command(flatten)]
        reader: ReaderArgument,
        /// Look up this card id instead of a card in a reader
        #[arg(long, value_name = "GUID", conflicts_with = "reader")]
        card_id: Option<CardId>,
    },
    /// Show the daemon's state: readers, cards, CM, outbox, recent outcomes
    Status,
    /// List and manage outbox entries
    #[command(subcommand)]
    Outbox(OutboxCommand),
    /// Show the audit trail, oldest line first
    Audit(AuditArguments),
    /// Test the configuration, readers, outbox and connection to CM; suggest a fix for each failure
    Check,
    /// Validate or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Generate a shell completion script
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Generate the manual page
    Man,
}

#[derive(Debug, Args)]
struct ReaderArgument {
    /// Reader name or part of it [default: the only reader with a card]
    #[arg(id = "reader", long = "reader", value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// List all entries, oldest first
    List,
    /// Show one entry in detail
    Show {
        /// Entry id
        id: EntryId,
    },
    /// Retry an entry now; requeues a parked entry
    Retry {
        /// Entry id
        id: EntryId,
    },
    /// Discard an entry permanently (audited); the card is not updated
    Discard {
        /// Entry id
        id: EntryId,
        /// Confirm
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Validate the configuration and list all errors
    Check,
    /// Show effective settings and their origin
    Show,
    /// Print a commented example file
    Example,
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = Output::stdout(arguments.json);
    match execute(&arguments, &mut out) {
        Ok(exit) => exit.into(),
        Err(error) => error.report(),
    }
}

fn execute(arguments: &Arguments, out: &mut Output) -> Result<Exit, CommandError> {
    let config = arguments.config.as_deref();
    match &arguments.command {
        Command::Run => run(config),
        Command::Scan { once } => scan::scan(config, *once, out),
        Command::Read { reader, trace } => cards::read(config, reader.name.as_deref(), *trace, out),
        Command::Lookup { reader, card_id } => {
            lookup::lookup(config, reader.name.as_deref(), *card_id, out)
        }
        Command::Status => daemon::status(config, out),
        Command::Outbox(OutboxCommand::List) => daemon::list(config, out),
        Command::Outbox(OutboxCommand::Show { id }) => daemon::show(config, *id, out),
        Command::Outbox(OutboxCommand::Retry { id }) => {
            daemon::act(config, *id, EntryAction::Retry, out)
        }
        Command::Outbox(OutboxCommand::Discard { id, yes: true }) => {
            daemon::act(config, *id, EntryAction::Discard, out)
        }
        Command::Outbox(OutboxCommand::Discard { id, yes: false }) => {
            let text = format!(
                "discarding entry {id} is permanent and the card will not be updated; confirm with --yes"
            );
            Err(CommandError::new(Exit::Usage, text))
        }
        Command::Audit(audit) => match &audit.command {
            Some(AuditCommand::Verify { against }) => audit_verify::verify(config, against, out),
            None => audit::audit(config, audit, out),
        },
        Command::Check => check::check(config, out),
        Command::Config(ConfigCommand::Check) => config_loader::check(config, out),
        Command::Config(ConfigCommand::Show) => config_loader::show(config, out),
        Command::Config(ConfigCommand::Example) => {
            out.bytes(crate::config::example().as_bytes())?;
            Ok(Exit::Success)
        }
        Command::Completions { shell } => completions(*shell, out),
        Command::Man => man(out),
    }
}

/// `run`
fn run(config: Option<&Path>) -> Result<Exit, CommandError> {
    let settings = config_loader::load(config)?.settings;
    start_logging(settings.log);
    let file = config.map(Path::to_owned);
    let reload = Box::new(move || match config_loader::load(file.as_deref()) {
        Ok(loaded) => Ok(loaded.settings),
        Err(error) => Err(error.to_string()),
    });
    app::run(settings, reload).map_err(CommandError::of)?;
    Ok(Exit::Success)
}

fn start_logging(settings: LogSettings) {
    let level = match settings.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let output = match settings.format {
        LogFormat::Auto => LogOutput::suitable(),
        LogFormat::Text => LogOutput::Text,
        LogFormat::Json => LogOutput::Json,
        LogFormat::Journald => LogOutput::Journal,
    };
    telemetry::init(level, output, IdRedaction { show_full: settings.show_ids });
}

/// The FILES section of the manual page.
const FILES: [(&str, &str); 4] = [
    (
        "/etc/cardbridge/cardbridge.toml, /etc/cardbridge/conf.d/*.toml",
        "The configuration. cardbridge config example prints one with every key.",
    ),
    ("/var/lib/cardbridge/outbox.db", "The outbox and the audit trail."),
    (
        "/run/cardbridge/control.sock",
        "The socket by which status, outbox and audit ask the running daemon.",
    ),
    (
        "$CREDENTIALS_DIRECTORY",
        "The directory of secrets that the configuration names without a path.",
    ),
];

/// `completions`
fn completions(shell: Shell, out: &mut Output) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "cardbridge", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Success)
}

/// `man`: the program, then each of its commands.
fn man(out: &mut Output) -> Result<Exit, CommandError> {
    let mut page = Vec::new();
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    program(&root, &mut page)?;
    let mut heading = Roff::new();
    heading.control("SH", ["COMMANDS"]);
    heading.to_writer(&mut page)?;
    for command in leaves(&root) {
        page.extend(section(command)?);
    }
    files(&mut page)?;
    out.bytes(&page)?;
    Ok(Exit::Success)
}

fn program(root: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(root.clone()).manual("User commands");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)
}

/// The commands that can be run, in the order of the help.
fn leaves(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().flat_map(|below| {
        let does = !below.has_subcommands() || below.get_name() == "audit";
        does.then_some(below).into_iter().chain(leaves(below))
    });
    below.collect()
}

/// One command, its synopsis, description and options one level below those of the program.
fn section(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut heading = Roff::new();
    heading.control("SS", [command.get_bin_name().unwrap_or(command.get_name())]);
    let mut section = Vec::new();
    heading.to_writer(&mut section)?;
    let mut parts = Vec::new();
    let own = command.clone().mut_args(|argument| {
        let everywhere = argument.is_global_set() || argument.get_id() == "help";
        argument.hide(everywhere)
    });
    let man = Man::new(own);
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    for line in String::from_utf8_lossy(&parts).lines() {
        // The headings of these parts would be the program's.
        if line.starts_with(".SH") {
            section.extend_from_slice(b".PP\n");
        } else {
            section.extend_from_slice(line.as_bytes());
            section.push(b'\n');
        }
    }
    Ok(section)
}

fn files(page: &mut Vec<u8>) -> io::Result<()> {
    let mut files = Roff::new();
    files.control("SH", ["FILES"]);
    for (path, what) in FILES {
        files.control("TP", []);
        files.text([bold(path)]);
        files.text([roman(what)]);
    }
    files.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_argument_and_command_is_documented() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no about", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}: {argument}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }
}
