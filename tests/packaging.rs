//! What a package carries beside the program, judged by the programs that will read it: systemd's
//! own tools, the engine that polkit runs its rules in, mandoc and bash.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a test fails where something is not as expected"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use cardbridge_harness::require;

const BINARY: &str = env!("CARGO_BIN_EXE_cardbridge");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a judge, if this machine has such a program.
fn judge(command: &mut Command) -> Result<Output, String> {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let program = command.get_program().to_string_lossy();
            Err(format!("{program} is missing (tests/install-packages)"))
        }
        output => Ok(output.unwrap()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The judge has nothing to say.
#[track_caller]
fn is_silent(output: &Output) {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{:?}: {said}", output.status);
}

fn install(destination: &Path) {
    let output = Command::new("make")
        .args(["-s", "install", &format!("BINARY={BINARY}")])
        .arg(format!("DESTDIR={}", destination.display()))
        .current_dir(root())
        .output()
        .unwrap();
    is_silent(&output);
}

/// Every file below, with its mode; documents left out.
fn files(directory: &Path, below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let relative = path.strip_prefix(below).unwrap().display().to_string();
        if path.is_dir() {
            files(&path, below, found);
        } else if !relative.starts_with("usr/share/doc/") {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            found.push(format!("{mode:04o} {relative}"));
        }
    }
    found.sort_by(|a, b| a.split(' ').nth(1).cmp(&b.split(' ').nth(1)));
}

#[test]
fn make_install_puts_every_file_where_a_package_has_it() {
    let place = tempfile::tempdir().unwrap();
    install(place.path());
    let mut found = Vec::new();
    files(place.path(), place.path(), &mut found);
    assert_eq!(
        found,
        [
            "0640 etc/cardbridge/cardbridge.toml",
            "0755 usr/bin/cardbridge",
            "0644 usr/lib/systemd/system/cardbridge.service",
            "0644 usr/lib/sysusers.d/cardbridge.conf",
            "0644 usr/lib/tmpfiles.d/cardbridge.conf",
            "0644 usr/share/bash-completion/completions/cardbridge",
            "0644 usr/share/fish/vendor_completions.d/cardbridge.fish",
            "0644 usr/share/man/man1/cardbridge.1",
            "0644 usr/share/polkit-1/rules.d/49-cardbridge.rules",
            "0644 usr/share/zsh/site-functions/_cardbridge",
        ]
    );
    let documents = place.path().join("usr/share/doc/cardbridge");
    for document in
        ["README.md", "docs/install.md", "docs/architecture.svg", "docs/decisions/README.md"]
    {
        assert!(documents.join(document).is_file(), "{document}");
    }
    let configuration = place.path().join("etc/cardbridge/cardbridge.toml");
    let mut check = Command::new(BINARY);
    check.args(["config", "check", "--config"]).arg(&configuration);
    assert!(check.output().unwrap().status.success(), "the example is good");
}

#[test]
fn install_and_uninstall_keep_existing_configuration() {
    let place = tempfile::tempdir().unwrap();
    let configuration = place.path().join("etc/cardbridge/cardbridge.toml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(&configuration, "# the site's\n").unwrap();
    install(place.path());
    let uninstalled = Command::new("make")
        .args(["-s", "uninstall", &format!("DESTDIR={}", place.path().display())])
        .current_dir(root())
        .output();
    is_silent(&uninstalled.unwrap());
    let mut found = Vec::new();
    files(place.path(), place.path(), &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(fs::read_to_string(&configuration).unwrap(), "# the site's\n");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let place = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(root().join("systemd/cardbridge.service")).unwrap();
    let at = place.path().join("cardbridge.service");
    fs::write(&at, unit.replace("/usr/bin/cardbridge", BINARY)).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&at);
    let output = require!(judge(&mut verify));
    is_silent(&output);
}

#[test]
fn the_unit_restarts_the_daemon_but_not_for_a_bad_configuration() {
    let unit = fs::read_to_string(root().join("systemd/cardbridge.service")).unwrap();
    let has = |line: &str| unit.lines().any(|it| it == line);
    let bad = Command::new(BINARY).args(["run", "--config", "/nowhere.toml"]).output().unwrap();
    let code = bad.status.code().unwrap();
    assert!(has("Restart=on-failure") && has(&format!("RestartPreventExitStatus={code}")));
}

#[test]
fn the_user_has_no_shell_and_owns_the_configuration_by_group_only() {
    let place = tempfile::tempdir().unwrap();
    install(place.path());
    let below = format!("--root={}", place.path().display());
    let made = require!(judge(Command::new("systemd-sysusers").arg(&below)));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let users = fs::read_to_string(place.path().join("etc/passwd")).unwrap();
    let user: Vec<_> =
        users.lines().find(|line| line.starts_with("cardbridge:")).unwrap().split(':').collect();
    assert_eq!(user.last(), Some(&"/usr/sbin/nologin"), "{users}");
    let groups = fs::read_to_string(place.path().join("etc/group")).unwrap();
    for group in ["cardbridge-view", "cardbridge-operator"] {
        let line = groups.lines().find(|line| line.starts_with(&format!("{group}:")));
        assert!(line.is_some_and(|line| line.ends_with(':')), "without members: {groups}");
    }
    require!(require::root());
    let made = require!(judge(Command::new("systemd-tmpfiles").args(["--create", &below])));
    is_silent(&made);
    for (path, mode) in [("etc/cardbridge", 0o750), ("etc/cardbridge/cardbridge.toml", 0o640)] {
        let meta = fs::metadata(place.path().join(path)).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&meta);
        let group = std::os::unix::fs::MetadataExt::gid(&meta).to_string();
        assert_eq!((owner, group.as_str()), (0, user.get(3).copied().unwrap()), "{path}");
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{path}");
    }
}

/// What polkit gives its rules, and the questions; an answer a line.
const POLKIT: &str = r#"
var rules = [];
var polkit = {
    Result: { NO: "no", YES: "yes", AUTH_ADMIN: "auth_admin", NOT_HANDLED: null },
    addRule: function (rule) { rules.push(rule); },
    log: function () {}
};
"#;
const QUESTIONS: &str = r#"
var ours = ["org.debian.pcsc-lite.access_pcsc", "org.debian.pcsc-lite.access_card"];
var others = ["org.freedesktop.systemd1.manage-units", "org.debian.pcsc-lite.access_pcscd", ""];
["cardbridge", "root", "cardbridge2", "daemon"].forEach(function (user) {
    ours.concat(others).forEach(function (id) {
        var action = { id: id, lookup: function () {} };
        var subject = { user: user, groups: ["cardbridge"], local: false, active: false };
        var answers = rules.map(function (rule) { return rule(action, subject); });
        var handled = answers.filter(function (answer) { return answer; });
        if (handled.length) { print(user, id, handled[0]); }
    });
});
"#;

#[test]
fn polkit_rule_permits_only_card_access_of_cardbridge() {
    let place = tempfile::tempdir().unwrap();
    let script = |name: &str, content: &str| {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    // Duktape is what polkit itself runs its rules in.
    let mut duk = Command::new("duk");
    duk.arg(script("polkit.js", POLKIT));
    duk.arg(root().join("systemd/polkit/49-cardbridge.rules"));
    duk.arg(script("questions.js", QUESTIONS));
    let output = require!(judge(&mut duk));
    assert_eq!(
        text(&output.stdout),
        "cardbridge org.debian.pcsc-lite.access_pcsc yes\n\
         cardbridge org.debian.pcsc-lite.access_card yes\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_manual_page_has_every_command_and_no_error() {
    let page = Command::new(BINARY).arg("man").output().unwrap().stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &page).unwrap();
    let mut lint = Command::new("mandoc");
    lint.args(["-T", "lint", "-W", "error"]).arg(file.path());
    let output = require!(judge(&mut lint));
    is_silent(&output);
    let ascii = Command::new("mandoc").args(["-T", "ascii"]).arg(file.path()).output().unwrap();
    // Bold is a letter, a backspace and the letter again.
    let shown = text(&ascii.stdout);
    let mut plain = String::new();
    for letter in shown.chars() {
        if letter == '\u{8}' {
            plain.pop().unwrap();
        } else {
            plain.push(letter);
        }
    }
    for command in ["run", "scan", "outbox discard", "audit verify", "config example", "man"] {
        assert!(plain.contains(&format!("\n   cardbridge {command}\n")), "{command}: {plain}");
    }
    for line in ["--trace", "/etc/cardbridge/cardbridge.toml", "Exit codes: 0 success"] {
        assert!(plain.contains(line), "{line}: {plain}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let script = Command::new(BINARY).args(["completions", "bash"]).output().unwrap().stdout;
    let complete = |words: &str, count: usize| {
        let ask = format!(
            "{}\nCOMP_WORDS=({words}); COMP_CWORD={count}\n\
             _cardbridge cardbridge \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$((COMP_CWORD-1))]}}\"\n\
             echo \"${{COMPREPLY[@]}}\"",
            text(&script)
        );
        text(&Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap().stdout)
    };
    assert_eq!(complete("cardbridge outbox re", 2), "retry\n");
    assert_eq!(complete("cardbridge read --tr", 2), "--trace\n");
    for shell in ["zsh", "fish"] {
        let made = Command::new(BINARY).args(["completions", shell]).output().unwrap();
        assert!(text(&made.stdout).contains("discard"), "{shell}");
    }
}
