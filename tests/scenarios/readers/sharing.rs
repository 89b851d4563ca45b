//! Another program with the card: one that we did not write, and that is stopped in the middle of
//! a command for as long as the scenario needs it.

use super::*;

/// `opensc-tool` with these arguments, on a reader of the world's pcscd.
pub(in super::super) fn opensc(
    world: &World,
    reader: usize,
    settings: &str,
    args: &[&str],
) -> Command {
    let file = world.dir().join("opensc.conf");
    std::fs::write(&file, settings).unwrap();
    let mut command = cardbridge_harness::process::mortal("opensc-tool");
    command.args(["--reader", &world.pcscd.reader_names()[reader]]).args(args);
    command.env("PCSCLITE_CSOCK_NAME", world.pcscd.socket_path()).env("OPENSC_CONF", file);
    command
}

/// Whether OpenSC's tool is there.
pub(in super::super) fn has_opensc() -> Result<(), String> {
    require::program("opensc-tool", "opensc")
}

/// A world with a card that another program holds: its first command waits to be answered.
fn held(exclusive: bool) -> Result<(World, InsertedCard, Beside), String> {
    let world = world()?;
    has_opensc()?;
    let world = world.without_daemon().start().unwrap();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    wait_powered(&card);
    card.hang_at(1);
    let settings =
        format!("app default {{ reader_driver pcsc {{ connect_exclusive = {exclusive}; }} }}");
    let program = Beside::start(opensc(&world, 0, &settings, &["--serial"]));
    card.wait_for("the other program's command", LONG, |state| state.hanging).unwrap();
    Ok((world, card, program))
}

#[test]
fn exclusively_held_card_is_waited_for() {
    let (mut world, card, mut program) = require!(held(true));
    world.start_daemon().unwrap();
    wait_card(&world, 0, "reading");
    assert_eq!(card.apdus().len(), 1, "only the other program's command");
    assert!(program.runs());
    card.release();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let ended = || !program.runs();
    world.wait_until("the other program's end", LONG, ended).unwrap();
    assert!(program.output().contains("3F F1 88 BC"), "undisturbed: {}", program.output());
    world.finish().unwrap();
}

#[test]
fn long_exclusively_held_card_is_in_use_then_read() {
    let (mut world, card, mut program) = require!(held(true));
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "in-use");
    assert_eq!(card.apdus().len(), 1, "only the other program's command");
    assert!(program.runs());
    assert_eq!(world.cm.log().len(), 0);
    card.release();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
    world.finish().unwrap();
}

/// The kernel's threads of the daemon.
fn threads(world: &World) -> usize {
    let pid = world.daemon_pid().unwrap();
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn card_in_long_transaction_is_in_use_then_read() {
    let (mut world, card, program) = require!(held(false));
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "in-use", "{line}");
    let before = threads(&world);
    // It is tried again after 5 s, and no thread is left behind for that.
    std::thread::sleep(Duration::from_secs(7));
    assert!(threads(&world) <= before, "{} threads, {before} before", threads(&world));
    assert_eq!(card.apdus().len(), 1, "only the other program's command");
    card.release();
    let began = Instant::now();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(program);
    world.finish().unwrap();
}

#[test]
fn card_in_transaction_is_waited_for() {
    let (mut world, card, mut program) = require!(held(false));
    world.start_daemon().unwrap();
    wait_card(&world, 0, "reading");
    assert_eq!(card.apdus().len(), 1, "only the other program's command");
    card.release();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let ended = || !program.runs();
    world.wait_until("the other program's end", LONG, ended).unwrap();
    assert!(program.output().contains("3F F1 88 BC"), "undisturbed: {}", program.output());
    world.finish().unwrap();
}
