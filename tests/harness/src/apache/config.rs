//! Apache's configuration.

use std::net::SocketAddr;
use std::path::Path;

use super::{ApacheOptions, ClientCertificate, MODULES, TlsVersion};
use crate::cm::BASE_PATH;

const NEEDED: &[&str] = &[
    "mpm_event",
    "authn_core",
    "authz_core",
    "authz_user",
    "auth_gssapi",
    "headers",
    "proxy",
    "proxy_http",
    "socache_shmcb",
    "ssl",
];

/// The whole configuration file of an instance in `dir`.
pub(super) fn text(dir: &Path, address: SocketAddr, options: &ApacheOptions) -> String {
    let load = |module| format!("LoadModule {module}_module {MODULES}/mod_{module}.so\n");
    let mut text: String = NEEDED.iter().map(load).collect();
    text.push_str(&general(dir, address));
    text.push_str(&upstream(options.upstream));
    if let Some(version) = options.tls {
        text.push_str(&tls(dir, version, options.client_certificate));
    }
    if options.negotiate.is_some() {
        text.push_str(&negotiate(dir, options.persist));
    }
    text
}

fn general(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "Listen {address}\n\
         ServerName localhost\n\
         ServerRoot {dir}\n\
         DefaultRuntimeDir {dir}\n\
         PidFile {dir}/apache.pid\n\
         Mutex file:{dir} default\n\
         ErrorLog {dir}/error.log\n\
         LogLevel info\n\
         LogFormat \"%{{remote}}p %k %m %U %>s %u\" story\n\
         CustomLog {dir}/access.log story\n\
         ThreadsPerChild 16\n\
         MaxRequestWorkers 16\n\
         KeepAlive On\n\
         KeepAliveTimeout 60\n"
    )
}

/// A simulator that was away is asked again at once.
fn upstream(upstream: SocketAddr) -> String {
    format!(
        "ProxyPreserveHost On\n\
         ProxyPass / http://{upstream}/ disablereuse=On retry=0\n\
         RequestHeader set X-Remote-User expr=%{{REMOTE_USER}} \"expr=-n %{{REMOTE_USER}}\"\n\
         RequestHeader unset X-Remote-User \"expr=-z %{{REMOTE_USER}}\"\n"
    )
}

fn negotiate(dir: &Path, persist: bool) -> String {
    let (dir, persist) = (dir.display(), if persist { "On" } else { "Off" });
    format!(
        "<Location />\n\
         AuthType GSSAPI\n\
         AuthName CM\n\
         GssapiAllowedMech krb5\n\
         GssapiCredStore keytab:{dir}/keytab\n\
         GssapiConnectionBound {persist}\n\
         Require valid-user\n\
         </Location>\n"
    )
}

fn tls(dir: &Path, version: TlsVersion, client: ClientCertificate) -> String {
    let dir = dir.display();
    let version = match version {
        TlsVersion::Tls12 => "TLSv1.2",
        TlsVersion::Tls13 => "TLSv1.3",
    };
    let require = match client {
        ClientCertificate::None => String::new(),
        ClientCertificate::WholeSite => "SSLVerifyClient require\n".to_owned(),
        ClientCertificate::PerPath => {
            let (_, application) = BASE_PATH.split_at(1);
            let application = application.split('/').next().unwrap_or_default();
            format!("<Location /{application}>\nSSLVerifyClient require\n</Location>\n")
        }
    };
    format!(
        "SSLEngine On\n\
         SSLProtocol -all +{version}\n\
         SSLSessionCache none\n\
         SSLCertificateFile {dir}/server.pem\n\
         SSLCertificateKeyFile {dir}/server.key\n\
         SSLCACertificateFile {dir}/ca.pem\n\
         RequestHeader set X-Client-Subject \"%{{SSL_CLIENT_S_DN}}s\"\n\
         {require}"
    )
}
