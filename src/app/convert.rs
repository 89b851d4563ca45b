//! Settings into each edge's own options.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::PROBE_DEADLINE;
use crate::cm::{CmClient, SetupError};
use crate::config::{
    AuthSettings, ClientAuthSettings, ClientCertSettings, KerberosAccount, ProxySettings, Settings,
};
use crate::engine::{EngineSettings, RetryPolicy};
use crate::telemetry::ErrorChain;
use crate::{cm, outbox, readers};

/// What the engine is told.
pub(super) fn engine_settings(settings: &Settings) -> EngineSettings {
    EngineSettings {
        station: settings.station.clone(),
        rules: settings.rules.clone(),
        readers: settings.readers.clone(),
        skip_atr: settings.skip_atr.clone(),
        concurrency: settings.cm.concurrency,
        retry: RetryPolicy { min: settings.outbox.retry_min, max: settings.outbox.retry_max },
        max_age: settings.outbox.max_age,
        probe_deadline: PROBE_DEADLINE,
    }
}

/// What the outbox is told.
pub(crate) fn outbox_options(settings: &Settings) -> outbox::OutboxOptions {
    outbox::OutboxOptions {
        path: settings.outbox.path.clone(),
        max_entries: settings.outbox.max_entries,
        station: settings.station.clone(),
        now: Timestamp::now(),
    }
}

/// What the readers are told.
#[must_use]
pub fn reader_options(settings: &Settings) -> readers::ReaderOptions {
    readers::ReaderOptions { probing: settings.probe.clone(), probe_deadline: PROBE_DEADLINE }
}

/// A client of CM as the settings say; nothing is sent.
pub fn remote(settings: &Settings) -> Result<CmClient, CmSetupError> {
    let options = cm::CmOptions {
        url: settings.cm.url.clone(),
        api_path: settings.cm.api_path.clone(),
        timeout: settings.cm.timeout,
        connect_timeout: settings.cm.connect_timeout,
        ca_file: settings.cm.ca_file.as_deref().map(credential_path).transpose()?,
        proxy: proxy(&settings.cm.proxy)?,
        auth: auth(&settings.cm.auth)?,
        client_certificate: settings.cm.client_certificate.as_ref().map(certificate).transpose()?,
        numbers: settings.rules.numbers.clone(),
    };
    Ok(CmClient::new(options)?)
}

fn proxy(proxy: &ProxySettings) -> Result<cm::ProxyOptions, CmSetupError> {
    let place = |file: &Option<PathBuf>| file.as_deref().map(credential_path).transpose();
    Ok(match proxy {
        ProxySettings::Environment { credentials_file } => {
            cm::ProxyOptions::Environment { credentials_file: place(credentials_file)? }
        }
        ProxySettings::None => cm::ProxyOptions::None,
        ProxySettings::Named { url, credentials_file } => {
            cm::ProxyOptions::Named { url: url.clone(), credentials_file: place(credentials_file)? }
        }
    })
}

fn auth(auth: &AuthSettings) -> Result<cm::AuthOptions, CmSetupError> {
    Ok(match auth {
        AuthSettings::None => cm::AuthOptions::None,
        AuthSettings::Bearer { token_file } => {
            cm::AuthOptions::Bearer { token_file: credential_path(token_file)? }
        }
        AuthSettings::Negotiate { account, spn, channel_bindings } => {
            cm::AuthOptions::Negotiate(kerberos(account, spn.clone(), *channel_bindings)?)
        }
        AuthSettings::OAuth2(client) => cm::AuthOptions::OAuth2(cm::OAuth2Options {
            token_url: client.token_url.clone(),
            client_id: client.client_id.clone(),
            proof: client_authentication(&client.proof)?,
            resource: client.resource.clone(),
            scope: client.scope.clone(),
        }),
    })
}

fn kerberos(
    account: &KerberosAccount,
    spn: Option<String>,
    channel_bindings: bool,
) -> Result<cm::KerberosOptions, CmSetupError> {
    let keytab = credential_path(&account.keytab)?;
    Ok(cm::KerberosOptions { keytab, principal: account.principal.clone(), spn, channel_bindings })
}

fn client_authentication(
    proof: &ClientAuthSettings,
) -> Result<cm::ClientAuthentication, CmSetupError> {
    Ok(match proof {
        ClientAuthSettings::Secret { file } => {
            cm::ClientAuthentication::Secret { file: credential_path(file)? }
        }
        ClientAuthSettings::Assertion(pair) => {
            cm::ClientAuthentication::Assertion(certificate(pair)?)
        }
        ClientAuthSettings::Kerberos { account, channel_bindings } => {
            cm::ClientAuthentication::Kerberos(kerberos(account, None, *channel_bindings)?)
        }
    })
}

fn certificate(pair: &ClientCertSettings) -> Result<cm::ClientCertFiles, CmSetupError> {
    Ok(cm::ClientCertFiles {
        cert_file: credential_path(&pair.cert_file)?,
        key_file: credential_path(&pair.key_file)?,
    })
}

/// Why there is no client of CM: all of it in the configuration or on this machine.
#[derive(Debug, thiserror::Error)]
pub enum CmSetupError {
    /// A file is named that only systemd could have put somewhere, and it did not.
    #[error(
        "a key that ends in _file is a bare name, and $CREDENTIALS_DIRECTORY is not set\n\
         write the whole path, or have systemd load the credential"
    )]
    NoCredentials,
    /// The client cannot be set up.
    #[error("{}\n{}", ErrorChain(.0), .0.remedy())]
    Setup(#[from] SetupError),
}

/// The path of a `*_file`: a bare name is looked up where systemd puts a service's credentials,
/// and nowhere else.
pub fn credential_path(file: &Path) -> Result<PathBuf, CmSetupError> {
    if file.is_absolute() {
        return Ok(file.to_owned());
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(CmSetupError::NoCredentials)?;
    Ok(Path::new(&directory).join(file))
}

/// Keeps what a running daemon cannot change, and tells the keys whose change has to wait for
/// the next start.
pub(super) fn keep_restart_only_settings(old: &Settings, new: &mut Settings) -> Vec<&'static str> {
    let mut waiting = Vec::new();
    let mut keep = |key, changed: bool| {
        if changed {
            waiting.push(key);
        }
    };
    keep("station.id", old.station != new.station);
    keep("outbox.path", old.outbox.path != new.outbox.path);
    keep("outbox.max_entries", old.outbox.max_entries != new.outbox.max_entries);
    keep("control.socket", old.control.socket != new.control.socket);
    keep("control.view_group", old.control.view_group != new.control.view_group);
    keep("control.operator_group", old.control.operator_group != new.control.operator_group);
    keep("control.metrics_listen", old.control.metrics_listen != new.control.metrics_listen);
    keep("log.level", old.log.level != new.log.level);
    keep("log.format", old.log.format != new.log.format);
    new.station.clone_from(&old.station);
    new.outbox.path.clone_from(&old.outbox.path);
    new.outbox.max_entries = old.outbox.max_entries;
    new.control.clone_from(&old.control);
    (new.log.level, new.log.format) = (old.log.level, old.log.format);
    waiting
}
