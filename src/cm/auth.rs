//! The credentials of a call, and what a response says about them.
//!
//! Each method gives [`Credentials`] for one call. After the response it decides: a 401 may be worth one
//! retry with other credentials, and a server that can prove its identity must.

mod negotiate;
mod oauth2;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::classify::{AuthDecision, HttpResponse};
use super::file_contents::FileContents;
use super::http::HttpClient;
use super::redact::Redactor;
use super::secret::{self, ReloadingFile, Secret};
use crate::config::{AuthSettings, CmSettings};
use crate::domain::{CallError, CredentialsView, Problem, UnavailableReason};
use negotiate::{Negotiate, PendingContext};
use oauth2::OAuth2Client;

pub(super) use negotiate::check_keytab;
pub(super) use oauth2::client_secret;

/// The longest token file. Servers refuse header fields of a quarter of that.
const TOKEN_LIMIT: u64 = 64 << 10;

pub(super) enum Authenticator {
    None,
    Bearer(BearerTokenFile),
    Negotiate(Box<Negotiate>),
    OAuth2(Box<OAuth2Client>),
}

/// The credentials of one call.
pub(super) struct Credentials {
    /// The `Authorization` header; marked as sensitive.
    pub(super) header: Option<HeaderValue>,
    /// For the server's half of the negotiation.
    pending: Option<PendingContext>,
}

/// A token file, and the header made of it.
pub(super) struct BearerTokenFile(ReloadingFile<HeaderValue>);

impl Authenticator {
    /// `http` calls CM.
    pub(super) fn new(settings: &CmSettings, http: &HttpClient) -> Result<Self, Problem> {
        Ok(match &settings.auth {
            AuthSettings::None => Self::None,
            AuthSettings::Bearer { token_file } => {
                Self::Bearer(BearerTokenFile::new(token_file.clone()))
            }
            AuthSettings::Negotiate(kerberos) => {
                let transport = Arc::clone(http.transport());
                Self::Negotiate(Box::new(Negotiate::new(kerberos, transport)))
            }
            AuthSettings::OAuth2(client) => {
                Self::OAuth2(Box::new(OAuth2Client::new(client, settings, http.redactor())?))
            }
        })
    }

    /// The credentials for the next call.
    pub(super) async fn authorize(&self, deadline: Instant) -> Result<Credentials, CallError> {
        let (header, pending) = match self {
            Self::None => (None, None),
            Self::Bearer(file) => (Some(file.authorization()?), None),
            Self::Negotiate(negotiate) => {
                let (header, pending) = negotiate.token(deadline).await?;
                (Some(header), Some(pending))
            }
            Self::OAuth2(client) => (Some(client.token(deadline).await?), None),
        };
        Ok(Credentials { header, pending })
    }

    /// Adds the secrets in readable files to the redactor.
    pub(super) fn learn_secrets(&self, redactor: &Redactor) {
        match self {
            Self::None | Self::Negotiate(_) => {}
            Self::Bearer(file) => {
                if let Ok(header) = file.authorization() {
                    redactor.learn_headers(&header);
                }
            }
            Self::OAuth2(client) => client.learn_secrets(),
        }
    }

    /// The next call does not wait for the time that a token endpoint asked for.
    pub(super) fn expedite(&self) {
        if let Self::OAuth2(client) = self {
            client.expedite();
        }
    }

    pub(super) fn view(&self) -> CredentialsView {
        let method = match self {
            Self::Negotiate(negotiate) => return negotiate.view(),
            Self::OAuth2(client) => return client.view(),
            Self::None => "none",
            Self::Bearer(_) => "bearer",
        };
        CredentialsView { method: method.to_owned(), ..CredentialsView::default() }
    }

    pub(super) async fn on_response(
        &self,
        credentials: Credentials,
        response: &HttpResponse,
        deadline: Instant,
    ) -> AuthDecision {
        let Credentials { header, pending } = credentials;
        match (self, header, pending) {
            (Self::Bearer(file), Some(header), _) => file.on_response(&header, response),
            (Self::Negotiate(negotiate), _, Some(pending)) => {
                negotiate.on_response(pending, response, deadline).await
            }
            (Self::OAuth2(client), Some(header), _) => client.on_response(&header, response),
            _ => AuthDecision::Accept,
        }
    }
}

impl BearerTokenFile {
    const fn new(path: PathBuf) -> Self {
        Self(ReloadingFile::new(path))
    }

    /// The header for the next call; a changed file is read again.
    fn authorization(&self) -> Result<HeaderValue, CallError> {
        self.0.get(bearer_header).map_err(|problem| {
            let detail = format!("no token from {}: {problem}", self.0.path().display());
            CallError::unavailable(UnavailableReason::Credentials, detail)
        })
    }

    /// A rejected token may have been replaced meanwhile.
    fn on_response(&self, sent: &HeaderValue, response: &HttpResponse) -> AuthDecision {
        match self.0.get(bearer_header) {
            Ok(current) if response.is_unauthorized() && current != *sent => AuthDecision::Retry,
            Ok(_) | Err(_) => AuthDecision::Accept,
        }
    }
}

/// The header of the token in a file.
pub(super) fn bearer_header(path: &Path) -> Result<HeaderValue, Problem> {
    let text = secret::bare_secret(path, TOKEN_LIMIT)?;
    let token = text.expose().trim();
    if token.is_empty() {
        return Err(Problem::new("it is empty", "write the token into it"));
    }
    if token.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer ")) {
        return Err(FileContents::SCHEME.problem());
    }
    // Quotes, a name or a form around it: a token has `=` only at its end (RFC 6750 section 2.1).
    let wrapped = token.trim_end_matches('=').contains(['=', '"', '\'', '{', '}']);
    let token = Some(Secret::new(token.to_owned())).filter(|_| !wrapped);
    token.and_then(|token| token.bearer()).ok_or_else(|| {
        Problem::new("it holds something else than one token", "write the token alone")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bearer(path: &Path) -> BearerTokenFile {
        BearerTokenFile::new(path.to_owned())
    }

    fn header(file: &BearerTokenFile) -> String {
        file.authorization().unwrap().to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn assert_missing(file: &BearerTokenFile, expected: &str) {
        match file.authorization() {
            Err(CallError::Unavailable {
                reason: UnavailableReason::Credentials, detail, ..
            }) => {
                assert!(detail.contains(expected), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_trimmed_and_kept_out_of_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "\n s3cret \r\n").unwrap();
        let credentials = bearer(&path);
        assert_eq!(header(&credentials), "Bearer s3cret");
        assert!(!format!("{:?}", credentials.authorization()).contains("s3cret"));
    }

    #[test]
    fn a_token_is_read_again_when_its_file_is_written_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let credentials = bearer(&path);
        assert_eq!(header(&credentials), "Bearer one");
        fs::write(&path, "three").unwrap();
        assert_eq!(header(&credentials), "Bearer three");
        fs::write(dir.path().join("new"), "fours").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(header(&credentials), "Bearer fours");
        fs::remove_file(&path).unwrap();
        assert_missing(&credentials, "No such file");
    }

    #[test]
    fn a_file_without_one_token_gives_no_header_and_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, " \n").unwrap();
        assert_missing(&bearer(&path), "empty");
        for text in
            ["to\r\nken: x", "TOKEN=s3cret", "'s3cret'", "access_token=s3cret&x=y", "s3cr}t"]
        {
            fs::write(&path, text).unwrap();
            assert_missing(&bearer(&path), "something else");
        }
        fs::write(&path, "s3cr-_.~+/t==").unwrap();
        assert_eq!(header(&bearer(&path)), "Bearer s3cr-_.~+/t==");
        fs::write(&path, b"\xff\xff").unwrap();
        assert_missing(&bearer(&path), "UTF-8");
        assert_missing(&bearer(dir.path()), "not a file");
    }

    #[test]
    fn a_file_that_is_too_long_for_a_token_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "x".repeat(65_536)).unwrap();
        assert_eq!(header(&bearer(&path)).len(), "Bearer ".len() + 65_536);
        fs::write(&path, "x".repeat(65_537)).unwrap();
        assert_missing(&bearer(&path), "more than 65536 bytes");
    }
}
