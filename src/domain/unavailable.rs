//! Why CM is away, and what somebody can do about it.
//!
//! A word is what `status` and the log say; some words have several causes, each with a remedy of
//! its own.

use std::fmt;

/// The kinds of "CM is away".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableReason {
    /// No connection: name, route, refused, reset.
    Unreachable,
    /// No whole answer within `cm.timeout`.
    Timeout,
    /// The proxy on the way does not let us through.
    Proxy(ProxyFault),
    /// There is no TLS with the server.
    Tls(TlsFault),
    /// The server and our client certificate do not come together.
    ClientCertificate(ClientCertFault),
    /// Our own credentials could not be had, before anything was sent.
    Credentials,
    /// 401: not let in.
    Unauthorized,
    /// 404 on every route: the REST API is switched off.
    ApiDisabled,
    /// 405: something in front of the API, usually WebDAV, takes the method.
    MethodNotAllowed,
    /// The server does not read requests as long as ours.
    RequestTooLarge,
    /// 408, 429, 503: asked to come back later.
    Busy,
    /// Another 5xx.
    ServerError,
    /// The answer is no JSON, or no whole JSON, or too large: something else than CM is talking.
    NotCm,
}

/// What is wrong between us and the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFault {
    /// It cannot be reached.
    Unreachable,
    /// 407: it wants a login, or another one.
    AuthRequired,
    /// It does not connect to CM: it may not, or it cannot.
    ConnectRejected,
}

/// Why there is no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// Nobody whom we trust issued the server's certificate.
    UnknownIssuer,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    NameMismatch,
    /// The server's certificate is not one for servers.
    WrongPurpose,
    /// A signature does not fit: the CA has another key by now, or the key is too short.
    BadSignature,
    /// The server's certificate or its CA's is signed in a way that is too weak.
    WeakSignature,
    /// The server speaks neither TLS 1.2 nor 1.3.
    ProtocolVersion,
    /// The server has no cipher suite in common with us.
    NoCommonCipher,
    /// The server knows no site of that name.
    UnrecognizedName,
    /// What answers there speaks no TLS.
    NotTls,
    /// The server wants TLS, and was not spoken to in it.
    TlsRequired,
    /// Something else.
    Other,
}

/// Why the server does not take our client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertFault {
    /// It wants one, and none is configured.
    Required,
    /// It wants one only after it has read the request, which cannot be answered.
    RequestedLate,
    /// It does not accept the one that it was shown.
    Rejected,
}

impl UnavailableReason {
    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Proxy(_) => "proxy",
            Self::Tls(_) => "tls",
            Self::ClientCertificate(_) => "client-certificate",
            Self::Credentials => "credentials",
            Self::Unauthorized => "not-let-in",
            Self::ApiDisabled => "api-off",
            Self::MethodNotAllowed => "method-taken",
            Self::RequestTooLarge => "too-long",
            Self::Busy => "busy",
            Self::ServerError => "server-error",
            Self::NotCm => "not-cm",
        }
    }

    /// What somebody can do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => "check cm.url, the network and the server",
            Self::Timeout => "check the server's load, or raise cm.timeout",
            Self::Proxy(fault) => fault.remedy(),
            Self::Tls(fault) => fault.remedy(),
            Self::ClientCertificate(fault) => fault.remedy(),
            Self::Credentials => "check [cm.auth] and what it names, and cm.proxy_credentials_file",
            Self::Unauthorized => "check [cm.auth] and the account on the server",
            Self::ApiDisabled => {
                "set Clm.WebApi.Enabled to true in CM's web.config and run iisreset, or check cm.api_path"
            }
            Self::MethodNotAllowed => "remove WebDAV publishing from the web server: it takes PUT",
            Self::RequestTooLarge => {
                "have MaxFieldLength and MaxRequestBytes raised to 65534 below \
                 HKLM\\SYSTEM\\CurrentControlSet\\Services\\HTTP\\Parameters on the server and the \
                 service HTTP started anew, or put the station's account in fewer groups"
            }
            Self::Busy | Self::ServerError => "nothing to do here; look at the server if it lasts",
            Self::NotCm => "check that cm.url leads to CM and not to a proxy or another site",
        }
    }
}

impl ProxyFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "check cm.proxy, or HTTPS_PROXY where that is not set, and whether the proxy runs"
            }
            Self::AuthRequired => {
                "the proxy wants a login: write user:password into the file that \
                 cm.proxy_credentials_file names"
            }
            Self::ConnectRejected => {
                "have the proxy allow CONNECT to the host and port of cm.url, and see whether it \
                 reaches them; or go round it with cm.proxy = \"none\" or NO_PROXY"
            }
        }
    }
}

impl TlsFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "name the certificate of the CA that issued the server's in cm.ca_file; the server \
                 has to send what lies between the two"
            }
            Self::Expired => {
                "have the server's certificate renewed; if it is good, set this machine's clock"
            }
            Self::NotYetValid => "set this machine's clock, or the clock of the CA",
            Self::NameMismatch => {
                "write a name in cm.url that the certificate has, or have one issued with this name"
            }
            Self::WrongPurpose => {
                "give the server a certificate for server authentication that a CA issued: no \
                 client's, and not the CA's own"
            }
            Self::BadSignature => {
                "export the CA's certificate anew for cm.ca_file, it may be an older one of the same \
                 name; RSA keys have to have 2048 bits or more"
            }
            Self::WeakSignature => {
                "have the certificates issued anew, with SHA-256 and RSA of 2048 bits or more, or \
                 with ECDSA"
            }
            Self::ProtocolVersion => "switch TLS 1.2 or 1.3 on at the server",
            Self::NoCommonCipher => {
                "switch cipher suites with ECDHE and AES-GCM on at the server, as \
                 TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
            }
            Self::UnrecognizedName => {
                "write the name in cm.url that the web server has its site under"
            }
            Self::NotTls => "check host and port in cm.url: what answers there speaks no TLS",
            Self::TlsRequired => "write https:// in cm.url",
            Self::Other => "check the server's certificate, or name its CA in cm.ca_file",
        }
    }
}

impl ClientCertFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Required => {
                "name the station's certificate in cm.auth.client_cert_file and its key in \
                 cm.auth.client_key_file"
            }
            Self::RequestedLate => {
                "on the server, have it ask in the handshake: netsh http update sslcert \
                 ipport=0.0.0.0:443 certhash=HASH appid={GUID} clientcertnegotiation=enable \
                 (netsh http show sslcert tells HASH and GUID)"
            }
            Self::Rejected => {
                "see why: openssl x509 -noout -subject -issuer -dates -in FILE with the file of \
                 cm.auth.client_cert_file; its CA has to be trusted by the server, and its \
                 revocation list be within the server's reach"
            }
        }
    }
}

impl fmt::Display for UnavailableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
