//! A web server that demands Negotiate with channel bindings, as IIS does with
//! Extended Protection set to Required; Apache's module knows none.
//!
//! A fixed program in Python, because Python's GSSAPI is another implementation
//! than the daemon's own. `X-Remote-User` names the caller to the simulator.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::apache::Negotiate;
use crate::pki::{Authority, Signing};
use crate::ports;
use crate::process::mortal;
use crate::require;
use crate::server::Server;

/// Debian's own, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

const PROGRAM: &str = include_str!("acceptor/acceptor.py");

/// How an acceptor is set up.
#[derive(Clone, Debug)]
pub struct AcceptorOptions {
    /// The simulator behind it, which speaks plain HTTP.
    pub upstream: SocketAddr,
    /// The realm and the service's keys.
    pub negotiate: Negotiate,
    /// How its certificate is signed, which decides the hash in the bindings.
    pub signing: Signing,
}

/// A running acceptor; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Acceptor {
    server: Server,
    options: AcceptorOptions,
    dir: TempDir,
}

impl Acceptor {
    /// Starts one and waits until it takes connections.
    pub fn start(options: AcceptorOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("acceptor-").tempdir()?;
        let file = |name: &str| dir.path().join(name);
        let port = ports::reserve(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let ca = Authority::new("The acceptor's CA", options.signing)?;
        fs::write(file("ca.pem"), ca.pem())?;
        let leaf = ca.server(&["localhost", "127.0.0.1"])?;
        leaf.write(&file("server.pem"), &file("server.key"))?;
        fs::copy(&options.negotiate.keytab, file("keytab"))?;
        fs::write(file("acceptor.py"), PROGRAM)?;
        let server = Server::new("acceptor", dir.path(), port);
        let mut acceptor = Self { server, options, dir };
        acceptor.start_again()?;
        Ok(acceptor)
    }

    /// Its base URL, by the name that tickets are for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.server.address().port())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The certificate of the CA that signed its own.
    #[must_use]
    pub fn ca_pem(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Ends it: its port refuses.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Starts it on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        let AcceptorOptions { upstream, negotiate, signing } = &self.options;
        let hash = match signing {
            Signing::EcdsaSha256 | Signing::RsaSha256 => "sha256",
            Signing::EcdsaSha384 => "sha384",
        };
        let mut command: Command = mortal(PYTHON);
        command.arg("-I").arg(self.dir.path().join("acceptor.py")).arg(self.dir.path());
        command.arg(self.server.address().port().to_string());
        command.args([&upstream.ip().to_string(), &upstream.port().to_string(), hash]);
        command.env("KRB5_CONFIG", &negotiate.krb5_conf);
        command.env("KRB5RCACHEDIR", self.dir.path());
        self.server.launch(command)
    }

    /// A line a call: method, path, status, and who called or why no caller was
    /// let in (`no token`, `no bindings`, `wrong bindings`, ...).
    #[must_use]
    pub fn log(&self) -> String {
        self.server.output()
    }
}

/// Whether this machine can run an acceptor.
pub fn available() -> Result<(), String> {
    require::file(PYTHON, "python3")?;
    require::file("/usr/bin/openssl", "openssl")?;
    let import = require::runs(Command::new(PYTHON).args(["-I", "-c", "import gssapi"]), "gssapi");
    import.map_err(|error| format!("{error} (package python3-gssapi)"))
}
