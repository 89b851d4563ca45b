//! Why CM is unavailable, and the remedy.
//!
//! `status` and the log show the name of a reason; some have several causes, each with a remedy of
//! its own.

use strum::IntoStaticStr;

/// Why CM is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum UnavailableReason {
    /// No connection: name, route, refused, reset.
    Unreachable,
    /// No whole answer within `cm.timeout`.
    Timeout,
    /// The proxy does not connect us.
    Proxy(ProxyFault),
    /// There is no TLS with the server.
    Tls(TlsFault),
    /// The server and our client certificate do not come together.
    ClientCertificate(ClientCertFault),
    /// Our own credentials could not be obtained; nothing was sent.
    Credentials,
    /// 401.
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
    /// 407.
    AuthRequired,
    /// It does not connect to CM.
    ConnectRejected,
}

/// Why there is no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// No trusted CA issued the server's certificate.
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

enum_names!(UnavailableReason);

impl UnavailableReason {
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => "check cm.url, the network and the server",
            Self::Timeout => "check the server's load, or raise cm.timeout",
            Self::Proxy(fault) => fault.remedy(),
            Self::Tls(fault) => fault.remedy(),
            Self::ClientCertificate(fault) => fault.remedy(),
            Self::Credentials => {
                "check [cm.auth], the files it names, and cm.proxy_credentials_file"
            }
            Self::Unauthorized => "check [cm.auth] and the account on the server",
            Self::ApiDisabled => {
                "set Clm.WebApi.Enabled=true in CM's web.config and run iisreset; or correct cm.api_path"
            }
            Self::MethodNotAllowed => {
                "remove WebDAV Publishing from the web server; it intercepts PUT"
            }
            Self::RequestTooLarge => {
                "raise MaxFieldLength and MaxRequestBytes to 65534 (HKLM\\SYSTEM\\CurrentControlSet\\Services\\HTTP\\Parameters) and restart the HTTP service; or reduce the account's group memberships"
            }
            Self::Busy | Self::ServerError => {
                "no action needed here; check the server if this persists"
            }
            Self::NotCm => "check that cm.url points to CM, not to a proxy or another site",
        }
    }
}

impl ProxyFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "check that the proxy in cm.proxy (or HTTPS_PROXY) is correct and running"
            }
            Self::AuthRequired => {
                "write user:password to the file named by cm.proxy_credentials_file"
            }
            Self::ConnectRejected => {
                "allow CONNECT to the host and port of cm.url on the proxy; or bypass it with cm.proxy = \"none\" or NO_PROXY"
            }
        }
    }
}

impl TlsFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "put the issuing CA's certificate in cm.ca_file; the server must send its intermediate certificates"
            }
            Self::Expired => {
                "renew the server certificate; if it is still valid, correct this machine's clock"
            }
            Self::NotYetValid => "set this machine's clock, or the clock of the CA",
            Self::NameMismatch => {
                "use a host name in cm.url that the certificate contains, or reissue the certificate"
            }
            Self::WrongPurpose => {
                "install a CA-issued server authentication certificate; not a client or CA certificate"
            }
            Self::BadSignature => {
                "export the CA certificate again for cm.ca_file (it may have been renewed); RSA keys need at least 2048 bits"
            }
            Self::WeakSignature => "reissue the certificates with SHA-256 and RSA 2048+ or ECDSA",
            Self::ProtocolVersion => "enable TLS 1.2 or 1.3 on the server",
            Self::NoCommonCipher => {
                "enable ECDHE AES-GCM cipher suites on the server, such as TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
            }
            Self::UnrecognizedName => "use the web server's configured host name in cm.url",
            Self::NotTls => "check host and port in cm.url: the peer does not speak TLS",
            Self::TlsRequired => "write https:// in cm.url",
            Self::Other => "check the server's certificate, or name its CA in cm.ca_file",
        }
    }
}

impl ClientCertFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Required => "set cm.auth.client_cert_file and cm.auth.client_key_file",
            Self::RequestedLate => {
                "make the server request the certificate in the handshake: netsh http update sslcert ipport=0.0.0.0:443 certhash=HASH appid={GUID} clientcertnegotiation=enable (get HASH and GUID from netsh http show sslcert)"
            }
            Self::Rejected => {
                "see why: openssl x509 -noout -subject -issuer -dates -in FILE with the file of \
                 cm.auth.client_cert_file; its CA has to be trusted by the server, and its \
                 revocation list be within the server's reach"
            }
        }
    }
}

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Problem {
    /// A fragment, without a secret in it.
    pub what: String,
    /// One imperative.
    pub remedy: String,
}

impl Problem {
    /// A problem with its remedy.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}
