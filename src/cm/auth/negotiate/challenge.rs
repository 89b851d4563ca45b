//! What a server offers in `WWW-Authenticate`, and what a 401 means in view of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

use crate::wire::cm::single_line;

/// The authentication schemes that a server offers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenges {
    /// Each once, in the server's order.
    schemes: Vec<String>,
    /// The token after Negotiate.
    token: Option<Result<Vec<u8>, InvalidToken68>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's Negotiate token is not valid base64")]
pub(super) struct InvalidToken68;

/// The token that the server rejected.
#[derive(Debug, Clone)]
pub(super) struct TokenDescription<'a> {
    pub(super) principal: &'a str,
    pub(super) service: &'a str,
    pub(super) channel: Channel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Bound,
    /// Not bound, by configuration.
    Disabled,
    /// Not bound: no TLS, or a certificate without bindings.
    Unbound,
}

impl Challenges {
    /// Reads all lines of the header (RFC 9110 section 11.6.1): schemes, each with a token or with
    /// parameters.
    pub(super) fn new(challenges: &[HeaderValue]) -> Self {
        let mut offers = Self::default();
        let lines = challenges.iter().filter_map(|line| line.to_str().ok());
        for part in lines.flat_map(|line| line.split(',')) {
            let mut parts = part.split_ascii_whitespace();
            let Some(scheme) = parts.next() else { continue };
            // One more parameter of the scheme before.
            if scheme.contains('=') {
                continue;
            }
            if offers.token.is_none() && scheme.eq_ignore_ascii_case("Negotiate") {
                offers.token =
                    parts.next().map(|token| STANDARD.decode(token).map_err(|_| InvalidToken68));
            }
            if !offers.offers(scheme) {
                offers.schemes.push(single_line(scheme));
            }
        }
        offers
    }

    pub(super) fn token(&mut self) -> Option<Result<Vec<u8>, InvalidToken68>> {
        self.token.take()
    }

    fn offers(&self, scheme: &str) -> bool {
        self.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme))
    }

    pub(super) fn offers_negotiate(&self) -> bool {
        self.offers("Negotiate")
    }

    /// Why the server may have answered 401 to a valid ticket, and what to do; `error` is from its own
    /// token.
    pub(super) fn rejection(&self, error: Option<&str>, sent: &TokenDescription<'_>) -> String {
        let TokenDescription { principal, service, channel } = sent;
        if !self.offers_negotiate() {
            return self.no_negotiate();
        }
        match error {
            Some(error) => format!(
                "the server rejected the ticket for {service}: {error}; check with setspn -Q {service} \
                 that only the web site's account has this name, and compare the clocks"
            ),
            None => format!(
                "the server rejected {principal} in spite of a valid ticket for {service}: {}, or \
                 another account than the web site's has {service} (setspn -Q {service}), or this \
                 account has no access",
                channel.hint()
            ),
        }
    }

    fn no_negotiate(&self) -> String {
        let remedy = if self.offers("NTLM") {
            "cardbridge has no NTLM: add the provider Negotiate to the site's Windows \
             Authentication, above NTLM"
        } else if self.offers("Bearer") {
            "set cm.auth.method to oauth2 or bearer"
        } else {
            "switch Windows Authentication on for the site"
        };
        let schemes = match self.schemes.as_slice() {
            [] => "offers no authentication".to_owned(),
            schemes => format!("offers {} only", schemes.join(", ")),
        };
        single_line(&format!("the server does not accept Kerberos tickets, it {schemes}: {remedy}"))
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
