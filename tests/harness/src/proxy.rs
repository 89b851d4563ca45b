//! tinyproxy as a private instance: the forward proxy of a site.

use std::fs;
use std::net::SocketAddr;

use anyhow::Result;
use tempfile::TempDir;

use crate::ports;
use crate::process::mortal;
use crate::require;
use crate::server::{Server, text};

const TINYPROXY: &str = "/usr/bin/tinyproxy";

/// How a proxy is set up.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// User and password that it requires (Basic); none where `None`.
    pub credentials: Option<(String, String)>,
}

/// A running proxy; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Proxy {
    server: Server,
    dir: TempDir,
}

impl Proxy {
    /// Starts a proxy and waits until it takes connections.
    pub fn start(options: &ProxyOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("proxy-").tempdir()?;
        let port = ports::reserve(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let log = dir.path().join("proxy.log");
        let credentials = options.credentials.as_ref();
        let basic = credentials.map(|(user, password)| format!("BasicAuth {user} {password}\n"));
        let config = format!(
            "Listen 127.0.0.1\nPort {}\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\n\
             LogLevel Connect\nLogFile \"{}\"\n{}",
            port.1.port(),
            log.display(),
            basic.unwrap_or_default(),
        );
        fs::write(dir.path().join("proxy.conf"), config)?;
        let server = Server::new("tinyproxy", dir.path(), port);
        let mut proxy = Self { server, dir };
        proxy.start_again()?;
        Ok(proxy)
    }

    /// Its URL, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Ends it: its port refuses.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Starts it on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = mortal(TINYPROXY);
        command.arg("-d").arg("-c").arg(self.dir.path().join("proxy.conf"));
        self.server.launch(command)
    }

    /// From now on it takes connections and does nothing with them.
    pub fn freeze(&self) -> Result<()> {
        self.server.freeze()
    }

    /// Goes on.
    pub fn thaw(&self) -> Result<()> {
        self.server.thaw()
    }

    /// What it was asked for, also where it refused: `CONNECT host:port` and
    /// `GET http://...` lines.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("Request (file descriptor"));
        let request = lines.filter_map(|line| line.split_once("): ").map(|(_, request)| request));
        request.map(str::to_owned).collect()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.dir.path().join("proxy.log")) + &self.server.output()
    }
}

/// Whether this machine can run a proxy.
pub fn available() -> Result<(), String> {
    require::file(TINYPROXY, "tinyproxy-bin")
}
