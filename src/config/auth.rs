//! `[cm.auth]` and `cm.proxy`: how the station is let in, and what is on the way.
//!
//! No path here is told in a message: it may be the secret itself, written where its file belongs;
//! nor is an address with a password in it. Keys of another method than the chosen one are refused:
//! whoever wrote them believes that they count.

use toml::Value;

use super::address;
use super::problem::{Fault, Reported};
use super::scope::Scope;
use super::settings::{Auth, ClientCertificate, ClientProof, KerberosAccount, OAuth2, Proxy};
use super::value::{choice, credential, switch, text, word};

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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    None,
    Bearer,
    Negotiate,
    OAuth2,
}

const METHODS: [(&str, Method); 4] = [
    ("negotiate", Method::Negotiate),
    ("oauth2", Method::OAuth2),
    ("bearer", Method::Bearer),
    ("none", Method::None),
];

/// The keys that belong to methods, and to which.
const OF_METHODS: [(&str, &[Method]); 10] = [
    (KEYTAB, &[Method::Negotiate, Method::OAuth2]),
    (PRINCIPAL, &[Method::Negotiate, Method::OAuth2]),
    (SPN, &[Method::Negotiate]),
    (CHANNEL_BINDINGS, &[Method::Negotiate, Method::OAuth2]),
    (TOKEN_URL, &[Method::OAuth2]),
    (CLIENT_ID, &[Method::OAuth2]),
    (SECRET_FILE, &[Method::OAuth2]),
    (WINDOWS, &[Method::OAuth2]),
    (RESOURCE, &[Method::OAuth2]),
    (SCOPE, &[Method::OAuth2]),
];

pub(super) fn auth(
    scope: &mut Scope<'_>,
    certificate: &Result<Option<ClientCertificate>, Reported>,
) -> Result<Auth, Reported> {
    let method = scope.required(METHOD, choice(&METHODS))?;
    let foreign = refuse_foreign(scope, method);
    let auth = match method {
        Method::None => Ok(Auth::None),
        Method::Bearer => bearer(scope),
        Method::Negotiate => negotiate(scope),
        Method::OAuth2 => oauth2(scope, certificate),
    };
    foreign.and(auth)
}

/// Keys of other methods, each a problem of its own.
fn refuse_foreign(scope: &mut Scope<'_>, method: Method) -> Result<(), Reported> {
    let bearer = (TOKEN_FILE, &[Method::Bearer][..]);
    let mut refused = Ok(());
    for (key, methods) in OF_METHODS.into_iter().chain([bearer]) {
        if scope.is_said(key) && !methods.contains(&method) {
            let what = format!("is of no use while {METHOD} is {:?}", name(method));
            let wanted: Vec<_> =
                methods.iter().map(|method| format!("{:?}", name(*method))).collect();
            let remedy = format!("write method = {}, or remove it", wanted.join(" or "));
            refused = Err(scope.refuse(key, Fault::new(what, remedy)));
        }
    }
    refused
}

fn name(method: Method) -> &'static str {
    METHODS.iter().find(|(_, known)| *known == method).map_or("", |(name, _)| name)
}

fn bearer(scope: &mut Scope<'_>) -> Result<Auth, Reported> {
    Ok(Auth::Bearer { token_file: scope.required(TOKEN_FILE, credential)? })
}

fn negotiate(scope: &mut Scope<'_>) -> Result<Auth, Reported> {
    let account = account(scope);
    let spn = scope.optional(SPN, spn);
    let channel_bindings = channel_bindings(scope);
    Ok(Auth::Negotiate { account: account?, spn: spn?, channel_bindings: channel_bindings? })
}

fn channel_bindings(scope: &mut Scope<'_>) -> Result<bool, Reported> {
    scope.optional(CHANNEL_BINDINGS, switch).map(|said| said.unwrap_or(true))
}

fn account(scope: &mut Scope<'_>) -> Result<KerberosAccount, Reported> {
    let keytab = scope.required(KEYTAB, credential);
    let principal = scope.optional(PRINCIPAL, word);
    Ok(KerberosAccount { keytab: keytab?, principal: principal? })
}

/// `HTTP/cm.example.com`: a service and a host, perhaps a realm.
fn spn(value: &Value) -> Result<String, Fault> {
    let name = word(value)?;
    let parts = name.split_once('/');
    if parts.is_some_and(|(service, host)| !service.is_empty() && !host.is_empty()) {
        Ok(name)
    } else {
        Err(Fault::new("is no service principal name", r#"write it like "HTTP/cm.example.com""#))
    }
}

fn oauth2(
    scope: &mut Scope<'_>,
    certificate: &Result<Option<ClientCertificate>, Reported>,
) -> Result<Auth, Reported> {
    let token_url = scope.required(TOKEN_URL, address::endpoint);
    let client_id = scope.required(CLIENT_ID, word);
    let proof = proof(scope, certificate);
    let resource = scope.optional(RESOURCE, word);
    let scopes = scope.optional(SCOPE, word);
    Ok(Auth::OAuth2(OAuth2 {
        token_url: token_url?,
        client_id: client_id?,
        proof: proof?,
        resource: resource?,
        scope: scopes?,
    }))
}

/// One proof, and no doubt which.
fn proof(
    scope: &mut Scope<'_>,
    certificate: &Result<Option<ClientCertificate>, Reported>,
) -> Result<ClientProof, Reported> {
    let windows = scope.optional(WINDOWS, switch).map(Option::unwrap_or_default);
    let secret = scope.optional(SECRET_FILE, credential);
    let channel_bindings = channel_bindings(scope);
    match (windows?, secret?) {
        (true, Some(_)) => {
            let what = format!("is of no use while {WINDOWS} is true");
            Err(scope.refuse(SECRET_FILE, Fault::new(what, "remove one of the two")))
        }
        (true, None) => Ok(ClientProof::Windows {
            account: account(scope)?,
            channel_bindings: channel_bindings?,
        }),
        (false, secret) => {
            refuse_kerberos(scope)?;
            match (secret, certificate.clone()?) {
                (Some(file), _) => Ok(ClientProof::Secret { file }),
                (None, Some(certificate)) => Ok(ClientProof::Assertion(certificate)),
                (None, None) => Err(scope.refuse_missing(SECRET_FILE)),
            }
        }
    }
}

fn refuse_kerberos(scope: &mut Scope<'_>) -> Result<(), Reported> {
    let mut refused = Ok(());
    for key in [KEYTAB, PRINCIPAL, CHANNEL_BINDINGS] {
        if scope.is_said(key) {
            let what = format!("is of no use while {WINDOWS} is false");
            refused = Err(scope.refuse(key, Fault::new(what, "set that to true, or remove it")));
        }
    }
    refused
}

/// The certificate and its key: both or none.
pub(super) fn client_certificate(
    scope: &mut Scope<'_>,
) -> Result<Option<ClientCertificate>, Reported> {
    let cert_file = scope.optional(CERT_FILE, credential);
    let key_file = scope.optional(KEY_FILE, credential);
    match (cert_file?, key_file?) {
        (Some(cert_file), Some(key_file)) => Ok(Some(ClientCertificate { cert_file, key_file })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(scope.refuse_missing(KEY_FILE)),
        (None, Some(_)) => Err(scope.refuse_missing(CERT_FILE)),
    }
}

pub(super) fn proxy(scope: &mut Scope<'_>) -> Result<Proxy, Reported> {
    let url = scope.optional(PROXY, proxy_url);
    let credentials_file = scope.optional(PROXY_CREDENTIALS, credential);
    match (url?, credentials_file?) {
        (Some(Some(url)), credentials_file) => Ok(Proxy::Named { url, credentials_file }),
        (None, credentials_file) => Ok(Proxy::Environment { credentials_file }),
        (Some(None), None) => Ok(Proxy::None),
        (Some(None), Some(_)) => {
            let what = "is of no use while cm.proxy is \"none\"";
            let remedy = "name a proxy in cm.proxy, or remove this";
            Err(scope.refuse(PROXY_CREDENTIALS, Fault::new(what, remedy)))
        }
    }
}

/// `none`, or the address of a proxy.
fn proxy_url(value: &Value) -> Result<Option<String>, Fault> {
    if text(value)? == "none" { Ok(None) } else { address::proxy(value).map(Some) }
}
