//! `completions` and `man`: what a package carries beside the program, made from its arguments.

use std::io;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::Roff;

use super::Arguments;
use super::exit::{CommandError, Exit};
use super::output::Output;

const NAME: &str = "cardbridge";

/// Where things are, for the manual page; docs/reference.md has more.
const FILES: [(&str, &str); 4] = [
    (
        "/etc/cardbridge/cardbridge.toml, /etc/cardbridge/conf.d/*.toml",
        "The configuration. cardbridge config example prints one with every key.",
    ),
    ("/var/lib/cardbridge/outbox.db", "The outbox and the audit trail."),
    ("/run/cardbridge/control.sock", "Where status, outbox and audit ask the running daemon."),
    ("$CREDENTIALS_DIRECTORY", "Where a secret is looked for that is named without a path."),
];

/// A script that has the shell complete commands and options.
pub(super) fn completions(shell: Shell, out: &mut Output) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    out.bytes(&script)
}

/// The manual page: the program, then each of its commands.
pub(super) fn man(out: &mut Output) -> Result<Exit, CommandError> {
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
    out.bytes(&page)
}

fn program(root: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(root.clone()).manual("User commands");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)
}

/// The commands that do something, in the order of the help.
fn leaves(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().flat_map(|below| {
        let does = !below.has_subcommands() || below.get_name() == "audit";
        does.then_some(below).into_iter().chain(leaves(below))
    });
    below.collect()
}

/// One command, its synopsis, description and options one level below those of the program.
fn section(command: &Command) -> io::Result<Vec<u8>> {
    let mut heading = Roff::new();
    // As it is typed.
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
        files.text([clap_mangen::roff::bold(path)]);
        files.text([clap_mangen::roff::roman(what)]);
    }
    files.to_writer(page)
}
