//! curl as an independent client.

use std::path::{Path, PathBuf};
use std::process::Command;

use cardbridge_harness::kdc::{Kdc, client_environment};
use cardbridge_harness::pki::Identity;
use tempfile::TempDir;

/// A call that the seed's CM answers by a record.
pub(crate) const CARD: &str =
    "/CertificateManagement/api/v1.0/smartcards?cardid=bc88f13f-83ba-4037-8262-46eba1291c6e";

/// What came back last.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// curl with tickets and a trusted CA of its own.
pub(crate) struct Curl {
    dir: TempDir,
    ca: Option<PathBuf>,
    krb5_conf: Option<PathBuf>,
}

impl Default for Curl {
    fn default() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, ca: None, krb5_conf: None }
    }
}

impl Curl {
    pub(crate) fn trusting(ca: &Path) -> Self {
        Self { ca: Some(ca.to_owned()), ..Self::default() }
    }

    /// Trusts a CA as well.
    pub(crate) fn trust(&mut self, ca: &Path) {
        self.ca = Some(ca.to_owned());
    }

    /// Gets a ticket for the principal.
    pub(crate) fn kinit(&mut self, kdc: &Kdc, principal: &str) {
        self.krb5_conf = Some(kdc.krb5_conf());
        let keytab = kdc.keytab(principal).expect("a keytab");
        let mut command = Command::new("kinit");
        command.args(["-k", "-t"]).arg(keytab).arg(principal);
        client_environment(&mut command, &kdc.krb5_conf(), self.dir.path());
        assert!(command.status().expect("kinit runs").success());
    }

    /// Lends the tickets to another client.
    pub(crate) fn log_in(&self, command: &mut Command) {
        if let Some(krb5_conf) = &self.krb5_conf {
            client_environment(command, krb5_conf, self.dir.path());
        }
    }

    /// The arguments that present a client certificate.
    pub(crate) fn identity(&self, identity: &Identity) -> [String; 4] {
        let (certificate, key) = (self.dir.path().join("me.pem"), self.dir.path().join("me.key"));
        identity.write(&certificate, &key).expect("files");
        let text = |path: PathBuf| path.display().to_string();
        ["--cert".to_owned(), text(certificate), "--key".to_owned(), text(key)]
    }

    /// The last answer to the call, or curl's complaint.
    pub(crate) fn get(&self, url: &str, more: &[&str]) -> Result<Reply, String> {
        let mut command = Command::new("curl");
        command.args(["-s", "-S", "-i", "--max-time", "20", "--noproxy", "*"]);
        if let Some(ca) = &self.ca {
            command.arg("--cacert").arg(ca);
        }
        self.log_in(&mut command);
        let output = command.args(more).arg(url).output().expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let (_, last) = text.split_at(text.rfind("HTTP/1.1 ").unwrap_or(0));
        let (head, body) = last.split_once("\r\n\r\n").unwrap_or((last, ""));
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        Ok(Reply {
            status: status.expect("a status"),
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }
}
