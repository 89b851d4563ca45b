//! Who may view and who may act, by what the kernel knows of the caller; and that no caller keeps
//! another out.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;

use super::*;

/// Debian's user and group `games`, and its group `users`, which nothing here has to do with.
const GAMES: [&str; 2] = ["--reuid=5", "--regid=60"];
const USERS: &str = "100";

/// A world that other users may enter, with `games` to view and `users` to act; none for others
/// than root.
fn open_world() -> Result<World, String> {
    let builder = world()?;
    require::root()?;
    let builder = builder
        .config_set("control.view_group", "\"games\"")
        .config_set("control.operator_group", "\"users\"");
    let world = builder.start().unwrap();
    for (path, mode) in [(world.dir().to_owned(), 0o755), (world.config_path(), 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    Ok(world)
}

/// A command of the agent as another user, who logged in as a third one.
fn as_user(world: &World, user: &[&str], groups: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut changed = Command::new("sh");
    changed.args(["-c", "echo 2 >/proc/self/loginuid; exec setpriv \"$@\"", "sh"]);
    changed.args(user).arg(groups).arg("--").arg(world.binary());
    changed.args(args).arg("--config").arg(world.config_path()).current_dir(world.dir());
    let output = changed.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn only_group_members_may_view_or_act() {
    let mut world = require!(open_world());
    world.cm.set_fault(Fault::Forbidden.method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    let stranger = ["--reuid=5", "--regid=64320"];
    let ask = |user: &[&str], groups: &str, args: &[&str]| as_user(&world, user, groups, args);

    let views: [&[&str]; 5] = [
        &["status"],
        &["outbox", "list"],
        &["outbox", "show", "1"],
        &["audit"],
        &["audit", "verify"],
    ];
    let acts: [&[&str]; 2] = [&["outbox", "retry", "1"], &["outbox", "discard", "1", "--yes"]];
    for command in views {
        let (code, text) = ask(&stranger, "--clear-groups", command);
        assert_eq!(code, Some(4), "{command:?}: {text}");
        assert!(text.contains("group games (usermod -aG games"), "{command:?}: {text}");
        for member in
            [ask(&GAMES, "--clear-groups", command), ask(&stranger, "--groups=7,60", command)]
        {
            assert_eq!(member.0, Some(0), "{command:?}: {}", member.1);
        }
    }
    for command in acts {
        for (user, groups) in [(&stranger, "--clear-groups"), (&GAMES, "--groups=7")] {
            let (code, text) = ask(user, groups, command);
            assert_eq!(code, Some(4), "{command:?}: {text}");
        }
        let (_, text) = ask(&GAMES, "--clear-groups", command);
        assert!(text.contains("may not act on entries: add the user to the group users"), "{text}");
    }
    assert_eq!(world.outcomes().unwrap(), ["parked"], "nothing was done");
    // The group of the service, which reads the secrets, gives no right.
    let (code, _) = ask(&["--reuid=5", "--regid=64321"], "--clear-groups", &["status"]);
    assert_eq!(code, Some(4));

    let operator = format!("--groups={USERS}");
    assert_eq!(ask(&stranger, &operator, &["status"]).0, Some(0));
    let (code, text) = ask(&stranger, &operator, &["outbox", "retry", "1"]);
    assert_eq!(code, Some(0), "{text}");
    world.wait_for_outcomes(3, LONG).unwrap();
    assert_eq!(world.audit().unwrap()[1]["by"], "games (uid 5) for bin (login uid 2)");
    assert_eq!(ask(&stranger, &operator, &["outbox", "discard", "1", "--yes"]).0, Some(0));
    assert_eq!(world.audit().unwrap()[3]["by"], "games (uid 5) for bin (login uid 2)");

    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn action_of_root_offline_is_audited_with_login_user() {
    let mut world = require!(open_world());
    world.cm.set_fault(Fault::Forbidden.method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();
    let root = ["--reuid=0", "--regid=0"];
    let (code, text) = as_user(&world, &root, "--clear-groups", &["outbox", "retry", "1"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(world.audit().unwrap()[1]["by"], "root (uid 0) for bin (login uid 2)");
    world.finish().unwrap();
}

#[test]
fn missing_groups_are_logged_once() {
    let world = require!(world()).start().unwrap();
    let logged =
        || world.daemon_log().matches("Groups for the control socket were not found").count();
    assert_eq!(logged(), 1, "{}", world.daemon_log());
    assert_eq!(world.cli(&["status"]).unwrap().code, Some(0));
    world.finish().unwrap();
}

/// One that other users may run.
const PYTHON: &str = "/usr/bin/python3";

/// Connects as often as it can and asks nothing, or asks and does not read.
const HOLDER: &str = "
import socket, sys, time
held = []
print('begun', flush=True)
while True:
    for _ in range(100):
        it = socket.socket(socket.AF_UNIX)
        it.settimeout(1)
        try:
            it.connect(sys.argv[1])
            if len(held) % 3:
                it.send(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n' + (b'\\r\\n' if len(held) % 3 == 2 else b''))
        except OSError:
            pass
        held.append(it)
    del held[:-1000]
    time.sleep(0.05)
";

/// A thousand connections are held by another user, and by the one who asks.
#[test]
fn status_answers_while_a_thousand_connections_are_held() {
    let world = require!(open_world());
    require!(require::file(PYTHON, "python3"));
    for user in
        [&["--reuid=7", "--regid=7"], &["--reuid=5", "--regid=60"], &["--reuid=0", "--regid=0"]]
    {
        let mut holder = Command::new("setpriv");
        holder.args(user).args(["--clear-groups", "--pdeathsig=KILL", "--", PYTHON, "-c", HOLDER]);
        holder.arg(world.control_path()).stdout(Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let mut begun = String::new();
        let output = holder.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut begun).unwrap();
        assert_eq!(begun, "begun\n");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            let status = world.cli(&["status"]).unwrap();
            assert_eq!(status.code, Some(0), "beside {user:?}: {status:?}");
            assert!(asked.elapsed() < Duration::from_secs(3), "beside {user:?}: {asked:?}");
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    drop(UnixStream::connect(world.control_path()).unwrap());
    world.finish().unwrap();
}
