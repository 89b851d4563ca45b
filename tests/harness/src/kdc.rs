//! A private Kerberos realm: MIT's krb5kdc on loopback, with a database of its
//! own.
//!
//! Clients and servers find it through `KRB5_CONFIG` set to
//! [`Kdc::krb5_conf`]; nothing below `/etc` is read or written. Hosts are called
//! `localhost`, because that name needs no resolver.

mod files;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::ports;
use crate::process::mortal;
use crate::require;
use crate::server::{Server, run, text};

const KDC: &str = "/usr/sbin/krb5kdc";
const KADMIN: &str = "/usr/sbin/kadmin.local";
const KDB_UTIL: &str = "/usr/sbin/kdb5_util";

/// The service that a web server on this machine is.
pub const WEB_SERVICE: &str = "HTTP/localhost";

/// What a realm is like.
#[derive(Clone, Debug)]
pub struct KdcOptions {
    /// Its name.
    pub realm: String,
    /// How long tickets live, where [`Kdc::set_max_life`] says nothing else.
    pub ticket_life: Duration,
    /// How far clocks may differ, in whole seconds. A ticket is good for that
    /// much longer than it says.
    pub clock_skew: Duration,
    /// Whether clients make up for a clock that differs from the KDC's, as they
    /// do, unless an option forbids it.
    pub timesync: bool,
}

impl Default for KdcOptions {
    fn default() -> Self {
        Self {
            realm: "CARDBRIDGE.TEST".to_owned(),
            ticket_life: Duration::from_hours(10),
            clock_skew: Duration::from_secs(2),
            timesync: true,
        }
    }
}

/// How often the KDC was asked, and with what result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KdcRequests {
    /// Tickets for tickets that were given: a login each.
    pub as_issued: usize,
    /// Logins that were refused; asking for pre-authentication is no refusal.
    pub as_refused: usize,
    /// Service tickets that were given.
    pub tgs_issued: usize,
    /// Service tickets that were refused.
    pub tgs_refused: usize,
}

/// A running KDC; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Kdc {
    server: Server,
    options: KdcOptions,
    dir: TempDir,
}

impl Kdc {
    /// Makes a realm with [`WEB_SERVICE`] in it and starts its KDC.
    pub fn start(options: KdcOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("kdc-").tempdir()?;
        let port = ports::reserve_for_both()?;
        files::write(dir.path(), &options, port.1)?;
        let server = Server::new("krb5kdc", dir.path(), port);
        let mut kdc = Self { server, options, dir };
        let mut create = kdc.tool(KDB_UTIL);
        create.args(["create", "-s", "-P", "not a secret"]);
        run(create).context("cannot make the realm's database")?;
        kdc.add_principal(WEB_SERVICE)?;
        kdc.start_again()?;
        Ok(kdc)
    }

    /// The realm's name.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.options.realm
    }

    /// Where it listens, for UDP and for TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The file for `KRB5_CONFIG`.
    #[must_use]
    pub fn krb5_conf(&self) -> PathBuf {
        self.dir.path().join("krb5.conf")
    }

    /// Adds a principal with a random key.
    pub fn add_principal(&self, name: &str) -> Result<()> {
        self.admin(&["addprinc", "-randkey", name])
    }

    /// Writes the principal's keys of today to a file, over those it held; its
    /// path is always the same.
    pub fn keytab(&self, name: &str) -> Result<PathBuf> {
        let path = self.keytab_path(name);
        let new = path.with_extension("new");
        let file = new.display().to_string();
        self.admin(&["ktadd", "-norandkey", "-k", &file, name])?;
        // Users who could read the old one can read the new one.
        if let Ok(old) = fs::metadata(&path) {
            fs::set_permissions(&new, old.permissions())?;
        }
        // In one step: a reader sees the old keys or the new ones.
        fs::rename(new, &path)?;
        Ok(path)
    }

    /// Gives the principal a new key. Its keytab is stale until
    /// [`Self::keytab`] writes it again.
    pub fn rekey(&self, name: &str) -> Result<()> {
        self.admin(&["cpw", "-randkey", name])
    }

    /// Lets the principal get no tickets: an account that was disabled.
    pub fn disable(&self, name: &str) -> Result<()> {
        self.admin(&["modprinc", "-allow_tix", name])
    }

    /// Lets it get tickets again.
    pub fn enable(&self, name: &str) -> Result<()> {
        self.admin(&["modprinc", "+allow_tix", name])
    }

    /// Removes the principal.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.admin(&["delprinc", "-force", name])
    }

    /// Sets how long the principal's tickets live, in whole seconds.
    pub fn set_max_life(&self, name: &str, life: Duration) -> Result<()> {
        let life = format!("{}s", life.as_secs());
        self.admin(&["modprinc", "-maxlife", &life, name])
    }

    /// Ends the KDC: its ports refuse.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Starts it on the same ports.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.tool(KDC);
        command.arg("-n");
        self.server.launch(command)
    }

    /// From now on requests are taken and not answered.
    pub fn swallow(&self) -> Result<()> {
        self.server.freeze()
    }

    /// Answers again, late ones first.
    pub fn answer_again(&self) -> Result<()> {
        self.server.thaw()
    }

    /// The requests so far, over all starts.
    #[must_use]
    pub fn requests(&self) -> KdcRequests {
        count(&self.log())
    }

    /// The KDC's log.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.dir.path().join("kdc.log"))
    }

    fn keytab_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{}.keytab", name.replace(['/', '@'], "_")))
    }

    fn admin(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.tool(KADMIN);
        command.args(arguments);
        run(command).map(drop)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = mortal(program);
        command
            .env("KRB5_CONFIG", self.krb5_conf())
            .env("KRB5_KDC_PROFILE", self.dir.path().join("kdc.conf"))
            .env("KRB5RCACHEDIR", self.dir.path())
            .env_remove("KRB5_TRACE");
        command
    }
}

/// Whether this machine can run a KDC.
pub fn available() -> Result<(), String> {
    require::file(KDC, "krb5-kdc")?;
    require::file(KADMIN, "krb5-admin-server")?;
    require::file("/usr/bin/kinit", "krb5-user")
}

/// One line a request, which says `AS_REQ` or `TGS_REQ` and what came of it.
fn count(log: &str) -> KdcRequests {
    let mut requests = KdcRequests::default();
    for line in log.lines() {
        let issued = line.contains(": ISSUE: ");
        let asks_for_proof = line.contains(": NEEDED_PREAUTH: ");
        let counter = match (line.contains(": AS_REQ "), line.contains(": TGS_REQ ")) {
            (true, _) if issued => &mut requests.as_issued,
            (true, _) if !asks_for_proof => &mut requests.as_refused,
            (_, true) if issued => &mut requests.tgs_issued,
            (_, true) => &mut requests.tgs_refused,
            _ => continue,
        };
        *counter += 1;
    }
    requests
}

/// Environment for Kerberos' own clients (`kinit`, `kvno`, `curl`) with a
/// ticket cache in `dir`.
pub fn client_environment(command: &mut Command, krb5_conf: &Path, dir: &Path) {
    command
        .env("KRB5_CONFIG", krb5_conf)
        .env("KRB5CCNAME", format!("FILE:{}", dir.join("tickets").display()))
        .env_remove("KRB5_TRACE");
}
