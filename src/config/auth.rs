//! `[cm.auth]` and `cm.proxy`: authentication and the proxy.
//!
//! No message shows a path, which may be the secret itself, nor an address with a password in it.
//! Keys of another method than the chosen one are problems: they would have no effect.

use strum::{IntoStaticStr, VariantArray};
use toml::Value;

use super::address;
use super::problem::ReportedProblem;
use super::settings::{
    AuthSettings, ClientAuthSettings, ClientCertSettings, KerberosSettings, OAuth2Settings,
    ProxySettings,
};
use super::tree::KeyReader;
use super::value::{boolean, choice, credential, single_line, text};
use crate::domain::Problem;

const METHOD: &str = "cm.auth.method";
const KEYTAB: &str = "cm.auth.keytab";
const PRINCIPAL: &str = "cm.auth.principal";
const SPN: &str = "cm.auth.spn";
const CHANNEL_BINDINGS: &str = "cm.auth.channel_bindings";
const TOKEN_URL: &str = "cm.auth.token_url";
const CLIENT_ID: &str = "cm.auth.client_id";
const SECRET_FILE: &str = "cm.auth.client_secret_file";
const WINDOWS: &str = "cm.auth.use_windows_client_authentication";
const RESOURCE: &str = "cm.auth.resource";
const SCOPE: &str = "cm.auth.scope";
const TOKEN_FILE: &str = "cm.auth.token_file";
const CERT_FILE: &str = "cm.auth.client_cert_file";
const KEY_FILE: &str = "cm.auth.client_key_file";
const PROXY: &str = "cm.proxy";
const PROXY_CREDENTIALS: &str = "cm.proxy_credentials_file";

#[derive(Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
enum AuthMethod {
    Negotiate,
    OAuth2,
    Bearer,
    None,
}

/// The keys that have an effect with some methods only.
const OF_METHODS: [(&str, &[AuthMethod]); 11] = [
    (KEYTAB, &[AuthMethod::Negotiate, AuthMethod::OAuth2]),
    (PRINCIPAL, &[AuthMethod::Negotiate, AuthMethod::OAuth2]),
    (SPN, &[AuthMethod::Negotiate]),
    (CHANNEL_BINDINGS, &[AuthMethod::Negotiate, AuthMethod::OAuth2]),
    (TOKEN_URL, &[AuthMethod::OAuth2]),
    (CLIENT_ID, &[AuthMethod::OAuth2]),
    (SECRET_FILE, &[AuthMethod::OAuth2]),
    (WINDOWS, &[AuthMethod::OAuth2]),
    (RESOURCE, &[AuthMethod::OAuth2]),
    (SCOPE, &[AuthMethod::OAuth2]),
    (TOKEN_FILE, &[AuthMethod::Bearer]),
];

pub(super) fn auth(
    scope: &mut KeyReader<'_>,
    certificate: &Result<Option<ClientCertSettings>, ReportedProblem>,
) -> Result<AuthSettings, ReportedProblem> {
    let method = scope.required(METHOD, choice(AuthMethod::VARIANTS, Into::into))?;
    let foreign = reject_other_methods_keys(scope, method);
    let auth = match method {
        AuthMethod::None => Ok(AuthSettings::None),
        AuthMethod::Bearer => scope
            .required(TOKEN_FILE, credential)
            .map(|token_file| AuthSettings::Bearer { token_file }),
        AuthMethod::Negotiate => kerberos(scope).map(AuthSettings::Negotiate),
        AuthMethod::OAuth2 => oauth2(scope, certificate),
    };
    foreign.and(auth)
}

/// Keys of other methods, each a problem of its own.
fn reject_other_methods_keys(
    scope: &mut KeyReader<'_>,
    method: AuthMethod,
) -> Result<(), ReportedProblem> {
    let mut refused = Ok(());
    for (key, methods) in OF_METHODS {
        if scope.is_set(key) && !methods.contains(&method) {
            let name = |method| format!("{:?}", <&str>::from(method));
            let what = format!("has no effect while {METHOD} is {}", name(method));
            let wanted: Vec<_> = methods.iter().map(|method| name(*method)).collect();
            let remedy = format!("write method = {}, or remove it", wanted.join(" or "));
            refused = Err(scope.report_problem(key, Problem::new(what, remedy)));
        }
    }
    refused
}

fn kerberos(scope: &mut KeyReader<'_>) -> Result<KerberosSettings, ReportedProblem> {
    let keytab = scope.required(KEYTAB, credential);
    let principal = scope.optional(PRINCIPAL, single_line);
    let spn = scope.optional(SPN, spn);
    let channel_bindings = scope.optional(CHANNEL_BINDINGS, boolean)?.unwrap_or(true);
    Ok(KerberosSettings { keytab: keytab?, principal: principal?, spn: spn?, channel_bindings })
}

/// `HTTP/cm.example.com`: a service and a host, perhaps a realm.
fn spn(value: &Value) -> Result<String, Problem> {
    let name = single_line(value)?;
    let parts = name.split_once('/');
    if parts.is_some_and(|(service, host)| !service.is_empty() && !host.is_empty()) {
        Ok(name)
    } else {
        Err(Problem::new("is no service principal name", r#"write it like "HTTP/cm.example.com""#))
    }
}

fn oauth2(
    scope: &mut KeyReader<'_>,
    certificate: &Result<Option<ClientCertSettings>, ReportedProblem>,
) -> Result<AuthSettings, ReportedProblem> {
    let token_url = scope.required(TOKEN_URL, address::endpoint);
    let client_id = scope.required(CLIENT_ID, single_line);
    let proof = client_authentication(scope, certificate);
    let resource = scope.optional(RESOURCE, single_line);
    let scopes = scope.optional(SCOPE, single_line);
    Ok(AuthSettings::OAuth2(OAuth2Settings {
        token_url: token_url?,
        client_id: client_id?,
        proof: proof?,
        resource: resource?,
        scope: scopes?,
    }))
}

/// Exactly one way of authentication.
fn client_authentication(
    scope: &mut KeyReader<'_>,
    certificate: &Result<Option<ClientCertSettings>, ReportedProblem>,
) -> Result<ClientAuthSettings, ReportedProblem> {
    let windows = scope.optional(WINDOWS, boolean).map(Option::unwrap_or_default);
    let secret = scope.optional(SECRET_FILE, credential);
    match (windows?, secret?) {
        (true, Some(_)) => {
            let what = format!("has no effect while {WINDOWS} is true");
            Err(scope.report_problem(SECRET_FILE, Problem::new(what, "remove one of the two")))
        }
        (true, None) => kerberos(scope).map(ClientAuthSettings::Kerberos),
        (false, secret) => {
            reject_kerberos_keys(scope)?;
            match (secret, certificate.clone()?) {
                (Some(file), _) => Ok(ClientAuthSettings::Secret { file }),
                (None, Some(certificate)) => Ok(ClientAuthSettings::Assertion(certificate)),
                (None, None) => Err(scope.report_missing(SECRET_FILE)),
            }
        }
    }
}

fn reject_kerberos_keys(scope: &mut KeyReader<'_>) -> Result<(), ReportedProblem> {
    let mut refused = Ok(());
    for key in [KEYTAB, PRINCIPAL, CHANNEL_BINDINGS] {
        if scope.is_set(key) {
            let what = format!("has no effect while {WINDOWS} is false");
            let problem = Problem::new(what, "set that to true, or remove it");
            refused = Err(scope.report_problem(key, problem));
        }
    }
    refused
}

/// The certificate and its key: both or none.
pub(super) fn client_certificate(
    scope: &mut KeyReader<'_>,
) -> Result<Option<ClientCertSettings>, ReportedProblem> {
    let cert_file = scope.optional(CERT_FILE, credential);
    let key_file = scope.optional(KEY_FILE, credential);
    match (cert_file?, key_file?) {
        (Some(cert_file), Some(key_file)) => Ok(Some(ClientCertSettings { cert_file, key_file })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(scope.report_missing(KEY_FILE)),
        (None, Some(_)) => Err(scope.report_missing(CERT_FILE)),
    }
}

pub(super) fn proxy(scope: &mut KeyReader<'_>) -> Result<ProxySettings, ReportedProblem> {
    let url = scope.optional(PROXY, proxy_url);
    let credentials_file = scope.optional(PROXY_CREDENTIALS, credential);
    match (url?, credentials_file?) {
        (Some(Some(url)), credentials_file) => Ok(ProxySettings::Named { url, credentials_file }),
        (None, credentials_file) => Ok(ProxySettings::Environment { credentials_file }),
        (Some(None), None) => Ok(ProxySettings::None),
        (Some(None), Some(_)) => {
            let what = "has no effect while cm.proxy is \"none\"";
            let remedy = "name a proxy in cm.proxy, or remove this";
            Err(scope.report_problem(PROXY_CREDENTIALS, Problem::new(what, remedy)))
        }
    }
}

/// `none`, or the address of a proxy.
fn proxy_url(value: &Value) -> Result<Option<String>, Problem> {
    if text(value)? == "none" { Ok(None) } else { address::proxy(value).map(Some) }
}
