//! What a server says in `WWW-Authenticate`, and what a 401 means in view of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

use crate::wire::cm::single_line;

/// What a server offers to be talked to with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenges {
    /// The schemes, each once, in the server's order.
    schemes: Vec<String>,
    /// What came along with Negotiate.
    token: Option<Result<Vec<u8>, InvalidToken68>>,
}

/// A token that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's Negotiate token is not valid base64")]
pub(super) struct InvalidToken68;

/// What a token was made of, for people.
#[derive(Debug, Clone)]
pub(super) struct TokenDescription<'a> {
    pub(super) principal: &'a str,
    pub(super) service: &'a str,
    pub(super) channel: Channel,
}

/// What a token says about the channel that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Which one it is.
    Bound,
    /// Nothing, for the configuration says so.
    Disabled,
    /// Nothing, for there is nothing to say: no TLS, or a certificate without bindings.
    Unbound,
}

impl Challenges {
    /// Reads all lines of the header (RFC 9110 section 11.6.1): schemes, each with a token or with
    /// parameters.
    pub(super) fn new(challenges: &[HeaderValue]) -> Self {
        let mut offers = Self::default();
        let lines = challenges.iter().filter_map(|line| line.to_str().ok());
        for part in lines.flat_map(|line| line.split(',')) {
            let mut words = part.split_ascii_whitespace();
            let Some(scheme) = words.next() else { continue };
            // One more parameter of the scheme before.
            if scheme.contains('=') {
                continue;
            }
            if offers.token.is_none() && scheme.eq_ignore_ascii_case("Negotiate") {
                offers.token =
                    words.next().map(|token| STANDARD.decode(token).map_err(|_| InvalidToken68));
            }
            offers.add(single_line(scheme));
        }
        offers
    }

    /// The token that came along with Negotiate.
    pub(super) fn token(&mut self) -> Option<Result<Vec<u8>, InvalidToken68>> {
        self.token.take()
    }

    fn add(&mut self, scheme: String) {
        if !self.offers(&scheme) {
            self.schemes.push(scheme);
        }
    }

    fn offers(&self, scheme: &str) -> bool {
        self.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme))
    }

    /// Whether a ticket can be shown at all.
    pub(super) fn negotiate(&self) -> bool {
        self.offers("Negotiate")
    }

    /// Why the server may have said 401 to a valid ticket, and what to do; `error` is what its own
    /// token says.
    pub(super) fn refusal(&self, error: Option<&str>, shown: &TokenDescription<'_>) -> String {
        let TokenDescription { principal, service, channel } = shown;
        if !self.negotiate() {
            return self.no_negotiate();
        }
        match error {
            Some(error) => format!(
                "the server did not take the ticket for {service}: {error}; see with setspn -Q {service} \
                 that this name stands on the account that the web site runs under and on no other, and \
                 compare the clocks"
            ),
            None => format!(
                "the server refused {principal} in spite of a valid ticket for {service}: {}, or \
                 {service} stands on another account than the web site's (setspn -Q {service}), or \
                 this account is not let in",
                channel.hint()
            ),
        }
    }

    fn no_negotiate(&self) -> String {
        let remedy = if self.offers("NTLM") {
            "NTLM is not spoken here: add the provider Negotiate to the site's Windows \
             Authentication, above NTLM"
        } else if self.offers("Bearer") {
            "set cm.auth.method to oauth2 or bearer"
        } else {
            "switch Windows Authentication on for the site"
        };
        let schemes = match self.schemes.as_slice() {
            [] => "names no way to log in".to_owned(),
            schemes => format!("lets in with {} only", schemes.join(", ")),
        };
        single_line(&format!("the server does not take Kerberos tickets, it {schemes}: {remedy}"))
    }
}

impl Channel {
    const fn hint(self) -> &'static str {
        match self {
            Self::Bound => {
                "something ends TLS before the server, so that the channel bindings do not fit \
                 (then set cm.auth.channel_bindings to false)"
            }
            Self::Disabled => {
                "it requires Extended Protection, and cm.auth.channel_bindings is false"
            }
            Self::Unbound => "it requires Extended Protection, and this channel has no bindings",
        }
    }
}

#[cfg(test)]
mod tests;
