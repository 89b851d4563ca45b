//! The command line: arguments, output for people and for programs, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::domain::{CardId, EntryId};

mod atr;
mod audit;
mod audit_verify;
mod cards;
mod check;
mod config_loader;
mod csv;
mod daemon;
mod exit;
mod lookup;
mod offline;
mod outbox;
mod output;
mod packaging;
mod recorded_hash;
mod status;
mod text;

use exit::CommandError;
use output::Output;

/// Watches PC/SC readers and pushes smart card status updates to MIM Certificate Management.
///
/// Exit codes: 0 done; 1 failed; 2 bad usage or configuration; 3 something needed is not
/// reachable (pcscd, CM, the daemon); 4 refused (permission, credentials, CM said no).
#[derive(Debug, Parser)]
#[command(name = "cardbridge", version, about, long_about, max_term_width = 100)]
struct Arguments {
    /// The configuration [default: /etc/cardbridge/cardbridge.toml, then conf.d/*.toml beside it]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print data as JSON; scan and audit print one object a line
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    ///
    /// SIGTERM and SIGINT stop it, SIGHUP reads the configuration again.
    Run,
    /// Show readers and cards as they come and go; CM is not asked
    Scan {
        /// Show what is there now, and end
        #[arg(long)]
        once: bool,
    },
    /// Identify the card that is in the reader now; CM is asked which id it knows, where cm.url is set
    Read(ReadArguments),
    /// Show what CM knows of the card and what the rules would do; nothing is changed
    Lookup {
        /// The reader: its name or a part of it [default: the one with a card]
        #[arg(long, value_name = "NAME", conflicts_with = "card_id")]
        reader: Option<String>,
        /// Ask for this card id instead of a card in a reader
        #[arg(long, value_name = "GUID")]
        card_id: Option<CardId>,
    },
    /// Show the running daemon: readers, cards, CM, outbox, latest outcomes
    Status,
    /// Show and manage the entries that wait, for CM or for a person
    #[command(subcommand)]
    Outbox(OutboxCommand),
    /// Show the audit trail, the oldest line first, or verify it
    Audit(AuditArguments),
    /// Go every step from the readers to CM's answer, and tell what to do where one fails
    Check,
    /// Check and show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script that has a shell complete commands and options
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
struct ReadArguments {
    /// The reader: its name or a part of it [default: the one with a card]
    #[arg(long, value_name = "NAME")]
    reader: Option<String>,
    /// Show every command and response
    #[arg(long)]
    trace: bool,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// Every entry, the oldest first
    List,
    /// One entry with all that is known about it
    Show {
        /// The entry's number
        id: EntryId,
    },
    /// Try an entry now; a parked one goes back into the queue
    Retry {
        /// The entry's number
        id: EntryId,
    },
    /// Remove an entry for good; the audit trail keeps that it was done
    Discard {
        /// The entry's number
        id: EntryId,
        /// Yes, really
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct AuditArguments {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    /// Not before: RFC 3339, a date (UTC), or an age like 2h or 30d
    #[arg(long, value_name = "T", value_parser = audit::parse_time)]
    since: Option<jiff::Timestamp>,
    /// Before: RFC 3339, a date (UTC), or an age like 2h or 30d
    #[arg(long, value_name = "T", value_parser = audit::parse_time)]
    until: Option<jiff::Timestamp>,
    /// About this card only
    #[arg(long, value_name = "GUID")]
    card: Option<CardId>,
    /// How lines look [default: text, or json with --json]
    #[arg(long, value_enum)]
    format: Option<AuditFormat>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Look for lines that were changed, removed or moved; end with 1 where there are any
    Verify {
        /// A head that the log told (seq and chain): end with 1 where the trail does not have it any
        /// more, and with 2 where it was pruned; may be given several times
        #[arg(long, value_name = "SEQ:HASH")]
        against: Vec<recorded_hash::RecordedHash>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuditFormat {
    /// For people
    Text,
    /// One object a line
    Json,
    /// A table with a header, as in RFC 4180
    Csv,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with the configuration
    Check,
    /// Show the effective settings, each with its origin
    Show,
    /// Print a commented example
    Example,
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = Output::stdout(arguments.json);
    match run(&arguments, &mut out) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

fn run(arguments: &Arguments, out: &mut Output) -> Result<exit::Exit, CommandError> {
    let config = arguments.config.as_deref();
    match &arguments.command {
        Command::Run => daemon::run(config),
        Command::Scan { once } => cards::scan(config, *once, out),
        Command::Read(read) => cards::read(config, read.reader.as_deref(), read.trace, out),
        Command::Lookup { reader, card_id } => {
            lookup::lookup(config, reader.as_deref(), *card_id, out)
        }
        Command::Status => status::status(config, out),
        Command::Outbox(OutboxCommand::List) => outbox::list(config, out),
        Command::Outbox(OutboxCommand::Show { id }) => outbox::show(config, *id, out),
        Command::Outbox(OutboxCommand::Retry { id }) => outbox::retry(config, *id, out),
        Command::Outbox(OutboxCommand::Discard { id, yes }) => {
            outbox::discard(config, *id, *yes, out)
        }
        Command::Audit(AuditArguments {
            command: Some(AuditCommand::Verify { against }), ..
        }) => audit_verify::verify(config, against, out),
        Command::Audit(audit) => audit::audit(config, audit, out),
        Command::Check => check::check(config, out),
        Command::Config(ConfigCommand::Check) => daemon::check(config, out),
        Command::Config(ConfigCommand::Show) => daemon::show(config, out),
        Command::Config(ConfigCommand::Example) => out.text(&crate::config::example()),
        Command::Completions { shell } => packaging::completions(*shell, out),
        Command::Man => packaging::man(out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
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
