//! How the station is let in: what goes along with a call, and what an answer says about it.
//!
//! Each method gives a [`Pass`] for one call. After the answer it is asked what came of it: a 401
//! may be worth one more try with another pass, and a server that can prove itself has to.

mod bearer;
mod negotiate;
mod oauth2;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::time::Instant;

use super::outbound::Outbound;
use super::redact::Redactor;
use super::retry_after;
use super::setup::{Clients, SetupError};
use super::{Auth, Options};
use crate::domain::{CallError, CredentialsView};
use bearer::TokenFile;
use negotiate::{Negotiate, Negotiation, Server};
use oauth2::TokenSource;

/// Where passes come from.
pub(super) enum Credentials {
    None,
    Bearer(TokenFile),
    Negotiate(Box<Negotiate>),
    OAuth2(Box<TokenSource>),
}

/// What goes along with one call.
pub(super) struct Pass {
    /// The `Authorization` header; marked as sensitive.
    pub(super) header: Option<HeaderValue>,
    /// What has to come of it.
    negotiation: Option<Negotiation>,
}

/// What an answer says about the pass that went with its call.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    /// The HTTP status.
    pub(super) status: u16,
    /// `WWW-Authenticate`, each line of it.
    pub(super) challenges: Vec<HeaderValue>,
    /// The certificate of the server that answered, as DER; none without TLS.
    pub(super) certificate: Option<Vec<u8>>,
    /// What the server's clock showed.
    pub(super) date: Option<Timestamp>,
}

/// What to do after an answer.
pub(super) enum Next {
    /// Believe it.
    Believe,
    /// Ask again, once, with another pass: this answer is a 401, so nothing was done.
    Again,
    /// Do not believe it.
    Doubt(CallError),
}

impl Credentials {
    /// `outbound` is what the calls to CM go through.
    pub(super) fn new(
        options: &Options,
        clients: &Clients<'_>,
        outbound: &Arc<Outbound>,
    ) -> Result<Self, SetupError> {
        Ok(match &options.auth {
            Auth::None => Self::None,
            Auth::Bearer { token_file } => Self::Bearer(TokenFile::new(token_file.clone())),
            Auth::Negotiate(kerberos) => {
                let server = Server {
                    url: clients.base().clone(),
                    outbound: Arc::clone(outbound),
                    connect_timeout: options.connect_timeout,
                };
                Self::Negotiate(Box::new(Negotiate::new(kerberos, server)))
            }
            Auth::OAuth2(client) => {
                Self::OAuth2(Box::new(TokenSource::new(client, options, clients)?))
            }
        })
    }

    /// What goes along with the next call.
    pub(super) async fn pass(&self, deadline: Instant) -> Result<Pass, CallError> {
        match self {
            Self::None => Ok(Pass { header: None, negotiation: None }),
            Self::Bearer(file) => Ok(Pass::token(file.authorization()?)),
            Self::Negotiate(negotiate) => negotiate.pass(deadline).await,
            Self::OAuth2(source) => source.token(deadline).await.map(Pass::token),
        }
    }

    /// Has what the files hold known as secret, as far as they can be read.
    pub(super) fn learn(&self, redactor: &Redactor) {
        match self {
            Self::None | Self::Negotiate(_) => {}
            Self::Bearer(file) => {
                if let Ok(header) = file.authorization() {
                    redactor.saw(&header);
                }
            }
            Self::OAuth2(source) => source.learn(),
        }
    }

    /// The next call asks for what it needs, whatever an issuer said of waiting.
    pub(super) fn hurry(&self) {
        if let Self::OAuth2(source) = self {
            source.hurry();
        }
    }

    /// How it stands with them, for people.
    pub(super) fn view(&self) -> CredentialsView {
        let method = match self {
            Self::Negotiate(negotiate) => return negotiate.view(),
            Self::OAuth2(source) => return source.view(),
            Self::None => "none",
            Self::Bearer(_) => "bearer",
        };
        CredentialsView { method: method.to_owned(), ..CredentialsView::default() }
    }

    /// What to make of an answer, as far as it is about the pass.
    pub(super) async fn after(&self, pass: Pass, welcome: Welcome, deadline: Instant) -> Next {
        match self {
            Self::None => Next::Believe,
            Self::Bearer(file) => file.after(&pass, &welcome),
            Self::Negotiate(negotiate) => negotiate.after(pass, welcome, deadline).await,
            Self::OAuth2(source) => source.after(&pass, &welcome),
        }
    }
}

/// Why there is no token in a file.
pub(super) fn token_in(path: &Path) -> Result<(), String> {
    bearer::read(path).map(drop).map_err(|error| error.to_string())
}

/// Why there is no client secret in a file.
pub(super) fn secret_in(path: &Path) -> Result<(), String> {
    oauth2::secret_in(path).map(drop)
}

/// Why a file is no keytab.
pub(super) fn keytab(path: &Path) -> Result<(), String> {
    negotiate::keytab(path)
}

impl Pass {
    /// A token that needs nothing from the answer.
    const fn token(header: HeaderValue) -> Self {
        Self { header: Some(header), negotiation: None }
    }
}

impl Welcome {
    pub(super) fn new(status: u16, headers: &HeaderMap, certificate: Option<Vec<u8>>) -> Self {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
        Self { status, challenges, certificate, date: retry_after::date(headers) }
    }

    /// Whether the caller was not let in.
    pub(super) const fn refused(&self) -> bool {
        self.status == 401
    }
}
