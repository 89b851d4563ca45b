//! Disks that are full or read-only: cards are read and shown, nothing is claimed that is not on
//! disk, and the daemon recovers by itself.
//!
//! The outbox lies on a small tmpfs in a mount namespace of the daemon's own; root is needed.

use std::path::Path;
use std::process::Command;

use cardbridge_harness::cards::GidsCard;

use super::*;

/// A world whose daemon is still to be started, and the directory of its outbox.
fn world_with_a_disk() -> Result<(World, tempfile::TempDir), String> {
    let builder = world()?;
    let disk = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs tmpfs {}", disk.path().display());
    let mut try_it = Command::new("unshare");
    require::runs(try_it.args(["--mount", "sh", "-c", &mount]), "no file system of its own")?;
    let path = format!("\"{}\"", disk.path().join("outbox.db").display());
    let world = builder.config_set("outbox.path", &path).without_daemon().start().unwrap();
    Ok((world, disk))
}

/// Starts the daemon on a small tmpfs, on which this is done first.
fn start(world: &mut World, disk: &Path, first: &str) {
    start_on(world, disk, "mount -t tmpfs -o size=1m tmpfs", first);
}

/// Starts the daemon on what this command mounts.
fn start_on(world: &mut World, disk: &Path, mount: &str, first: &str) {
    let disk = disk.display();
    let script = format!("{mount} {disk} && cd {disk} && {first} && cd / && exec \"$@\"");
    world.start_daemon_under(&["unshare", "--mount", "sh", "-c", &script, "sh"]).unwrap();
}

/// Does something in the daemon's mount namespace, within the outbox's directory.
fn inside(world: &World, disk: &Path, script: &str) {
    let pid = world.daemon_pid().unwrap().to_string();
    let script = format!("cd {} && {script}", disk.display());
    let output = Command::new("nsenter").args(["-t", &pid, "-m", "sh", "-c", &script]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

fn trouble(world: &World) -> String {
    let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
    status["outbox"]["write_error"].as_str().unwrap_or_default().to_owned()
}

/// The card is read and shown, and no entry is claimed for it.
fn is_shown_without_an_entry(world: &World) {
    let shown = || {
        let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
        let card = &status["readers"][0]["card"];
        card["state"] == "identified"
            && card["entry"].is_null()
            && status["outbox"]["write_error"].is_string()
    };
    world.wait_until("the card is shown, and the trouble", LONG, shown).unwrap();
    assert_eq!(world.cm.log().len(), 0, "CM is not asked about what is not on disk");
    let listed = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 0);
}

fn recovers(mut world: World) {
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(&world), RETIRED);
    assert_eq!(trouble(&world), "");
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(0));
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

const FILL: &str = "{ dd if=/dev/zero of=filler bs=4096 2>/dev/null || true; }";

#[test]
fn full_disk_at_start_does_not_prevent_reading() {
    let (mut world, disk) = require!(world_with_a_disk());
    world.expect_error("Outbox is not writable");
    world.expect_error("Outbox cannot store entries; retrying");
    start(&mut world, disk.path(), FILL);
    assert_ne!(trouble(&world), "");
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    is_shown_without_an_entry(&world);
    inside(&world, disk.path(), "rm filler");
    recovers(world);
}

#[test]
fn full_disk_delays_entries_until_space_returns() {
    let (mut world, disk) = require!(world_with_a_disk());
    world.expect_error("Outbox cannot store entries; retrying");
    world.expect_error("Audit line could not be stored");
    start(&mut world, disk.path(), "true");
    inside(&world, disk.path(), FILL);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    is_shown_without_an_entry(&world);
    inside(&world, disk.path(), "rm filler");
    recovers(world);
}

#[test]
fn read_only_disk_at_start_is_used_when_writable() {
    let (mut world, disk) = require!(world_with_a_disk());
    world.expect_error("Outbox is not writable");
    world.expect_error("Outbox cannot store entries; retrying");
    let read_only = format!("mount -o remount,ro {}", disk.path().display());
    start(&mut world, disk.path(), &read_only);
    assert!(trouble(&world).contains("Read-only file system"), "{}", trouble(&world));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    is_shown_without_an_entry(&world);
    inside(&world, disk.path(), &format!("mount -o remount,rw {}", disk.path().display()));
    recovers(world);
}

#[test]
fn disk_turned_read_only_is_logged_without_entry() {
    let (mut world, disk) = require!(world_with_a_disk());
    let image = tempfile::NamedTempFile::new().unwrap();
    let image = image.path().display();
    let mount = format!("mount -o loop,errors=remount-ro {image}");
    let make = format!("truncate -s 16M {image} && mkfs.ext4 -q {image}");
    let try_it = format!("{make} && {mount} {}", disk.path().display());
    let mut tried = Command::new("unshare");
    require!(require::runs(
        tried.args(["--mount", "sh", "-c", &try_it]),
        "no ext4 on a loop device"
    ));
    world.expect_error("Outbox cannot store entries; retrying");
    start_on(&mut world, disk.path(), &mount, "chmod 1777 .");
    // An error of the file system has the kernel take writes away; only mounting it again ends that.
    let fail = "device=$(basename \"$(findmnt -no SOURCE .)\") && \
                echo 1 > /sys/fs/ext4/$device/trigger_fs_error";
    let at = disk.path().display().to_string();
    inside(&world, disk.path(), &fail.replace(" .)", &format!(" {at})")));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    is_shown_without_an_entry(&world);
    world.kill9_daemon().unwrap();

    start_on(&mut world, disk.path(), &mount, "true");
    recovers(world);
}
