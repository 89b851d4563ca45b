//! Apache as a private instance in front of the simulator: who comes through it
//! has a Kerberos ticket, a client certificate or both.
//!
//! It passes the names on, so that the simulator's log names the caller:
//! `X-Remote-User` and `X-Client-Subject`.

mod config;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::kdc::{Kdc, WEB_SERVICE};
use crate::pki::{Authority, Identity, Signing};
use crate::ports;
use crate::process::mortal;
use crate::require;
use crate::server::{Server, text};

const APACHE: &str = "/usr/sbin/apache2";
const MODULES: &str = "/usr/lib/apache2/modules";

/// The user of Apache where the harness is root: it refuses to run as root.
const UNPRIVILEGED: u32 = 65534;

/// The one version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Which calls need a client certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// None.
    #[default]
    None,
    /// All: it is asked for in the handshake.
    WholeSite,
    /// Those to CM's path: it is asked for once the call is known, by
    /// renegotiation (TLS 1.2) or after the handshake (TLS 1.3).
    PerPath,
}

/// What a web server needs to let in callers with Kerberos tickets.
#[derive(Clone, Debug)]
pub struct Negotiate {
    /// Where the realm is described.
    pub krb5_conf: PathBuf,
    /// The keys of the service; a copy is taken.
    pub keytab: PathBuf,
}

impl Negotiate {
    /// The web service of a realm, with its keys of today.
    pub fn of(kdc: &Kdc) -> Result<Self> {
        Ok(Self { krb5_conf: kdc.krb5_conf(), keytab: kdc.keytab(WEB_SERVICE)? })
    }
}

/// How an instance is set up.
#[derive(Clone, Debug)]
pub struct ApacheOptions {
    /// The simulator behind it, which speaks plain HTTP.
    pub upstream: SocketAddr,
    /// Demands Negotiate for every call where not `None`.
    pub negotiate: Option<Negotiate>,
    /// Whether one call with a ticket opens the connection for those after it.
    pub persist: bool,
    /// HTTPS; plain HTTP where `None`.
    pub tls: Option<TlsVersion>,
    /// For HTTPS only.
    pub client_certificate: ClientCertificate,
}

impl ApacheOptions {
    /// Plain HTTP for every caller.
    #[must_use]
    pub fn before(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            negotiate: None,
            persist: false,
            tls: None,
            client_certificate: ClientCertificate::None,
        }
    }
}

/// A running Apache; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Apache {
    server: Server,
    ca: Authority,
    tls: bool,
    dir: TempDir,
}

impl Apache {
    /// Starts an instance and waits until it takes connections.
    pub fn start(options: &ApacheOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("apache-").tempdir()?;
        let port = ports::reserve(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let ca = Authority::new("Apache's CA", Signing::default())?;
        fs::write(dir.path().join("ca.pem"), ca.pem())?;
        let leaf = ca.server(&["localhost", "127.0.0.1"])?;
        leaf.write(&dir.path().join("server.pem"), &dir.path().join("server.key"))?;
        fs::write(dir.path().join("apache.conf"), config::text(dir.path(), port.1, options))?;
        let tls = options.tls.is_some();
        let server = Server::new("apache2", dir.path(), port);
        let mut apache = Self { server, ca, tls, dir };
        if let Some(negotiate) = &options.negotiate {
            apache.copy(&negotiate.krb5_conf, "krb5.conf")?;
            apache.set_keytab(&negotiate.keytab)?;
        }
        for name in ["server.key", "."] {
            apache.hand_over(name)?;
        }
        apache.start_again()?;
        Ok(apache)
    }

    /// Its base URL, by the name that tickets are for.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.server.address().port())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The certificate of the CA that signed its own, and that signs its
    /// clients'.
    #[must_use]
    pub fn ca_pem(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A client certificate that it accepts.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.ca.client(name)
    }

    /// Gives the service other keys, from the next call on.
    pub fn set_keytab(&self, keytab: &Path) -> Result<()> {
        self.copy(keytab, "keytab")
    }

    /// Ends it: its port refuses.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Starts it on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = if geteuid().is_root() { as_unprivileged() } else { mortal(APACHE) };
        let dir = self.dir.path();
        // One process: nothing is left behind when it is killed.
        command.arg("-X").arg("-f").arg(dir.join("apache.conf"));
        command.env("KRB5_CONFIG", dir.join("krb5.conf"));
        command.env("KRB5RCACHEDIR", dir).env_remove("KRB5_KTNAME");
        self.server.launch(command)
    }

    /// A line a call: connection, number of the call on it, method, path,
    /// status, user. A line is written after its answer was sent: wait for it.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.dir.path().join("access.log"))
    }

    /// What it has to say about itself.
    #[must_use]
    pub fn error_log(&self) -> String {
        text(&self.dir.path().join("error.log")) + &self.server.output()
    }

    fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let new = format!("{name}.new");
        let path = self.dir.path().join(&new);
        fs::copy(from, &path).with_context(|| format!("cannot copy {}", from.display()))?;
        self.hand_over(&new)?;
        fs::rename(path, self.dir.path().join(name))?;
        Ok(())
    }

    fn hand_over(&self, name: &str) -> Result<()> {
        let path = self.dir.path().join(name);
        if geteuid().is_root() {
            chown(&path, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(())
    }
}

/// Whether this machine can run an Apache.
pub fn available() -> Result<(), String> {
    let gssapi = format!("{MODULES}/mod_auth_gssapi.so");
    require::file(APACHE, "apache2-bin")?;
    require::file(&gssapi, "libapache2-mod-auth-gssapi")?;
    require::file("/usr/bin/openssl", "openssl")
}

/// A change of user clears the death signal, so it is set after it.
fn as_unprivileged() -> Command {
    let mut command = Command::new("setpriv");
    let user = UNPRIVILEGED.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    command.args(["setpriv", "--pdeathsig", "KILL", "--", APACHE]);
    command
}
