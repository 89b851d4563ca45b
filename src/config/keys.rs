//! The one table of all keys: it knows what may be set, and what holds where nobody sets it.
//!
//! What is checked, suggested, shown as example and documented is derived from here.

use super::suggest::nearest;

/// A key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Its path. `reader[].match` is the key of every `[[reader]]`; `NAME` at the end stands for
    /// names that the site chooses.
    pub path: &'static str,
    /// The kind of its value.
    pub form: ValueKind,
    /// What holds where nobody sets it.
    pub fallback: DefaultValue,
    /// A value that shows how it is set, as TOML; the default where that shows it.
    pub example: &'static str,
    /// What it does, in one line.
    pub meaning: &'static str,
}

/// The kind of a key's value, as far as it decides how an environment variable is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A string: the variable as it is.
    Text,
    /// Anything else: the variable as TOML; what it has to be in words.
    Toml(&'static str),
}

/// What holds where nobody sets a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing: it has to be set.
    Required,
    /// Nothing: it may stay unset.
    Unset,
    /// The host name.
    HostName,
    /// This, as TOML.
    Value(&'static str),
}

use DefaultValue::{HostName, Required, Unset, Value};
use ValueKind::Text;

const NUMBER: ValueKind = ValueKind::Toml("an integer, such as 4");
const SWITCH: ValueKind = ValueKind::Toml("true or false");
const LIST: ValueKind = ValueKind::Toml(r#"a list of strings, such as ["a", "b"]"#);

impl KeySpec {
    const fn new(
        path: &'static str,
        form: ValueKind,
        fallback: DefaultValue,
        meaning: &'static str,
    ) -> Self {
        let example = match fallback {
            Value(value) => value,
            Required | Unset | HostName => "",
        };
        Self { path, form, fallback, example, meaning }
    }

    const fn shown(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// The section that the key is in: `cm`, `cm.auth`, `rule[]`.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The list of tables that the key is in: `rule[]`; empty for all other keys.
    pub(super) fn list(&self) -> &'static str {
        if self.path.contains('[') { self.section() } else { "" }
    }

    /// The line above the key in a file: `[cm.auth]`, `[[rule]]`.
    pub(super) fn heading(&self) -> String {
        heading(self.section())
    }

    /// The key's name within its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The default in words or as TOML, for people.
    #[must_use]
    pub const fn default_text(&self) -> &'static str {
        match self.fallback {
            Required => "must be set",
            Unset => "not set",
            HostName => "the host name",
            Value(value) => value,
        }
    }

    /// The environment variable that sets the key; none for keys of a list of tables.
    #[must_use]
    pub fn variable(&self) -> Option<String> {
        let name = self.path.strip_suffix(WILDCARD).map_or_else(
            || self.path.to_ascii_uppercase(),
            |section| format!("{}{WILDCARD}", section.to_ascii_uppercase()),
        );
        (!self.path.contains('[')).then(|| format!("{PREFIX}{}", name.replace('.', "__")))
    }
}

/// How every environment variable that sets a key begins.
pub(super) const PREFIX: &str = "CARDBRIDGE_";

/// The end of a path that stands for names that the site chooses.
pub(super) const WILDCARD: &str = "NAME";

/// The rules that hold where no file has a `[[rule]]`.
pub(super) const DEFAULT_RULES: &str = r#"[[rule]]
name = "retire"
request_type = ["Retire"]
set_status = "Retired"

[[rule]]
name = "disable"
request_type = ["Disable"]
set_status = "Disabled"
"#;

/// Every key, section by section.
#[rustfmt::skip]
pub static KEYS: &[KeySpec] = &[
    KeySpec::new("station.id", Text, HostName, "What the audit trail calls this station.").shown(r#""desk-3""#),

    KeySpec::new("cm.url", Text, Required, "Where CM is: `https://host` or `https://host:port`; `http` to this machine only.").shown(r#""https://cm.example.com""#),
    KeySpec::new("cm.api_path", Text, Value(r#""/CertificateManagement/api/v1.0""#), "Where CM's REST API begins on that server."),
    KeySpec::new("cm.timeout", Text, Value(r#""10s""#), "How long one call may take, from 10ms to 1h."),
    KeySpec::new("cm.connect_timeout", Text, Value(r#""3s""#), "How long connecting may take, within `cm.timeout`."),
    KeySpec::new("cm.concurrency", NUMBER, Value("4"), "How many cards are worked on at a time, from 1 to 64; one card never twice at a time. With 2 or more, one place is kept for a card that comes now."),
    KeySpec::new("cm.ca_file", Text, Unset, "PEM file of certificates to trust in addition to the system's.").shown(r#""/etc/cardbridge/cm-ca.pem""#),
    KeySpec::new("cm.proxy", Text, Unset, "The proxy on the way to CM: `http://host:port` or `https://host:port`, or `none`. Where not set, `HTTPS_PROXY` (or `ALL_PROXY`) and `NO_PROXY` of the environment decide.").shown(r#""http://proxy.example.com:3128""#),
    KeySpec::new("cm.proxy_credentials_file", Text, Unset, "File with `user:password` for the proxy, on one line; read again when it changes.").shown(r#""/etc/cardbridge/proxy-credentials""#),

    KeySpec::new("cm.auth.method", Text, Value(r#""none""#), "How CM lets the station in: `negotiate` (Kerberos), `oauth2`, `bearer` or `none`.").shown(r#""negotiate""#),
    KeySpec::new("cm.auth.keytab", Text, Unset, "Kerberos keytab of the station; needed for `negotiate`.").shown(r#""/etc/cardbridge/station.keytab""#),
    KeySpec::new("cm.auth.principal", Text, Unset, "The station's Kerberos principal; the first one in the keytab where not set.").shown(r#""host/desk-3.example.com@EXAMPLE.COM""#),
    KeySpec::new("cm.auth.spn", Text, Unset, "Service principal name of CM's web server; `HTTP/` and the host of `cm.url` where not set.").shown(r#""HTTP/cm.example.com""#),
    KeySpec::new("cm.auth.channel_bindings", SWITCH, Unset, "Whether Kerberos is bound to the TLS channel, as Extended Protection asks, which it is where this is not set; `false` only behind something that ends TLS in front of CM.").shown("true"),
    KeySpec::new("cm.auth.token_url", Text, Unset, "Where tokens are issued; needed for `oauth2`.").shown(r#""https://adfs.example.com/adfs/oauth2/token""#),
    KeySpec::new("cm.auth.client_id", Text, Unset, "The station's client id there; needed for `oauth2`.").shown(r#""cardbridge-desk-3""#),
    KeySpec::new("cm.auth.client_secret_file", Text, Unset, "File with the client secret, for `oauth2`; without it, the client certificate signs (`private_key_jwt`).").shown(r#""/etc/cardbridge/client-secret""#),
    KeySpec::new("cm.auth.use_windows_client_authentication", SWITCH, Unset, "For `oauth2`: log on to the token endpoint with Kerberos (`keytab`, `principal`) instead of a secret.").shown("false"),
    KeySpec::new("cm.auth.resource", Text, Unset, "What the token is for, for `oauth2`; ADFS wants the identifier of CM's Web API.").shown(r#""https://cm.example.com/CertificateManagement""#),
    KeySpec::new("cm.auth.scope", Text, Unset, "What the token allows, for `oauth2`; names with blanks between them.").shown(r#""openid""#),
    KeySpec::new("cm.auth.token_file", Text, Unset, "File with the bearer token, read again when it changes; needed for `bearer`.").shown(r#""/etc/cardbridge/cm-token""#),
    KeySpec::new("cm.auth.client_cert_file", Text, Unset, "PEM file with the station's client certificate, and its chain, for TLS; with any method. Read again when it changes.").shown(r#""/etc/cardbridge/client.pem""#),
    KeySpec::new("cm.auth.client_key_file", Text, Unset, "PEM file with the key of that certificate, not encrypted.").shown(r#""/etc/cardbridge/client.key""#),

    KeySpec::new("cm.numbers.request_type.NAME", NUMBER, Unset, "CM's number of the request type NAME: adds a name, or corrects a known one.").shown("12"),
    KeySpec::new("cm.numbers.card_status.NAME", NUMBER, Unset, "CM's number of the card status NAME, likewise.").shown("6"),
    KeySpec::new("cm.numbers.request_status.NAME", NUMBER, Unset, "CM's number of the request status NAME, likewise.").shown("18"),

    KeySpec::new("cards.families", LIST, Value(r#"["gids", "idprime", "piv", "openpgp", "pkcs15"]"#), "The card families that are looked for, in this order; one that is left out is switched off."),
    KeySpec::new("cards.inventory", SWITCH, Value("true"), "Whether a card is asked for its inventory (ICCSN, CPLC and the like, for people) once it is known who it is; `false` spares it these commands."),
    KeySpec::new("cards.skip_atr", LIST, Value("[]"), "Cards that are seen, but never touched: ATRs in hex, `?` for any one digit.").shown(r#"["3b8f8001804f0ca00000030603????00000000??"]"#),
    KeySpec::new("cards.atr_mismatch", Text, Value(r#""warn""#), "What to do when CM's ATR is not the card's: `warn` and go on, or `refuse` and park."),

    KeySpec::new("card[].match", Text, Required, "Cards that are known better: an ATR in hex, `?` for any one digit.").shown(r#""3bfd1300008131fe158073c021c057597562694b6579??""#),
    KeySpec::new("card[].families", LIST, Unset, "What such a card is asked for instead of `cards.families`, in this order; the family of `id_rule` where only that is set.").shown(r#"["piv"]"#),
    KeySpec::new("card[].id_rule", Text, Unset, "The one rule whose id counts for such a card, as `cardbridge read` names it; all of them where not set.").shown(r#""piv-guid-le""#),

    KeySpec::new("reader[].match", Text, Required, "Glob on the PC/SC name: `*` for any text, `?` for one character, upper or lower case alike. On what the driver tells with `vendor:` or `serial:` in front.").shown(r#""*Omnikey*""#),
    KeySpec::new("reader[].label", Text, Unset, "What people call the reader; its PC/SC name where not set.").shown(r#""Desk 3, left""#),
    KeySpec::new("reader[].role", Text, Value(r#""desk""#), "A free word, for the rules."),
    KeySpec::new("reader[].enabled", SWITCH, Value("true"), "Whether cards in it are looked at."),
    KeySpec::new("reader[].settle", Text, Value(r#""0s""#), "How long a card may be gone and still not have left, up to 5s: for contactless readers, where a card flickers. No first insertion waits for it.").shown(r#""150ms""#),

    KeySpec::new("rule[].name", Text, Required, "What the audit trail calls the rule; no two the same.").shown(r#""retire-at-the-desk""#),
    KeySpec::new("rule[].on", Text, Value(r#""inserted""#), "What sets the rule off: a card that is `inserted`, or one that is `removed`."),
    KeySpec::new("rule[].request_type", LIST, Required, "The request types that it acts on, by name.").shown(r#"["Retire"]"#),
    KeySpec::new("rule[].set_status", Text, Required, "The card status to set, by name.").shown(r#""Retired""#),
    KeySpec::new("rule[].complete_request", SWITCH, Value("false"), "Whether the request is completed as well, once the record has the status."),
    KeySpec::new("rule[].card_status", LIST, Unset, "Only records with one of these statuses; any where not set.").shown(r#"["Active"]"#),
    KeySpec::new("rule[].reader_role", LIST, Unset, "Only readers with one of these roles; any where not set.").shown(r#"["desk"]"#),
    KeySpec::new("rule[].pick", Text, Value(r#""oldest""#), "Which request counts where several of its types name the record: the `oldest` or the `newest`, or `refuse` and park as `ambiguous`."),

    KeySpec::new("outbox.path", Text, Value(r#""/var/lib/cardbridge/outbox.db""#), "The file of the outbox and the audit trail."),
    KeySpec::new("outbox.max_entries", NUMBER, Value("100000"), "How many entries it holds, up to 10000000; further ones are refused, and that is told."),
    KeySpec::new("outbox.max_age", Text, Value(r#""30d""#), "For how long an entry waits before it is parked as `expired`. Time that surely passed counts: none for which the machine was off, and no jump of the clock."),
    KeySpec::new("outbox.retry_min", Text, Value(r#""1s""#), "The shortest wait between two tries."),
    KeySpec::new("outbox.retry_max", Text, Value(r#""5m""#), "The longest wait between two tries."),

    KeySpec::new("audit.keep", Text, Value(r#""400d""#), "How long the audit trail keeps a line, from 1d to 100years; a line whose entry waits stays."),

    KeySpec::new("control.socket", Text, Value(r#""/run/cardbridge/control.sock""#), "The Unix socket of `cardbridge status`, `outbox` and `audit`."),
    KeySpec::new("control.view_group", Text, Value(r#""cardbridge-view""#), "The group whose members may look at the daemon through the socket."),
    KeySpec::new("control.operator_group", Text, Value(r#""cardbridge-operator""#), "The group whose members may look, and retry and discard entries."),
    KeySpec::new("control.metrics_listen", Text, Unset, "An address and port of this machine's own at which monitoring gets `/metrics` without the socket.").shown(r#""127.0.0.1:9475""#),

    KeySpec::new("log.level", Text, Value(r#""info""#), "What is worth a line: `error`, `warn`, `info`, `debug` or `trace`."),
    KeySpec::new("log.format", Text, Value(r#""auto""#), "How a line looks: `text`, `json`, `journald` with every value a field, or `auto`: `journald` where standard error is the journal, else `text`."),
    KeySpec::new("log.show_ids", SWITCH, Value("true"), "`false` shortens card ids, serials and user ids in the log."),
];

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyMatch {
    /// A key.
    Key(&'static KeySpec),
    /// A table of keys.
    Section,
    /// A list of tables of keys.
    Tables,
    /// Nothing.
    Nothing,
}

/// What `name` in `section` stands for.
pub(super) fn find(section: &str, name: &str) -> KeyMatch {
    let mut siblings = KEYS.iter().filter(|key| key.section() == section);
    if let Some(key) = siblings.find(|key| key.name() == name || key.name() == WILDCARD) {
        return KeyMatch::Key(key);
    }
    // The dot and the bracket are ours: a quoted name that has one is nobody's.
    if name.is_empty() || name.contains(['.', '[']) {
        return KeyMatch::Nothing;
    }
    let path = join(section, name);
    if !within(&path).is_empty() {
        KeyMatch::Section
    } else if !within(&format!("{path}[]")).is_empty() {
        KeyMatch::Tables
    } else {
        KeyMatch::Nothing
    }
}

/// The path of `name` in `section`.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn heading(section: &str) -> String {
    match section.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{section}]"),
    }
}

/// Names of keys and sections directly in a section, each once.
fn within(section: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = KEYS
        .iter()
        .filter_map(|key| match section {
            "" => Some(key.path),
            _ => key.path.strip_prefix(section)?.strip_prefix('.'),
        })
        .filter_map(|rest| rest.split(['.', '[']).next())
        .collect();
    names.dedup();
    names
}

/// What to do about a name that stands for nothing.
pub(super) fn remedy_of_unknown(section: &str, name: &str) -> String {
    let siblings = within(section);
    let moved = KEYS.iter().find(|key| key.name().eq_ignore_ascii_case(name));
    match (nearest(name, siblings.iter().copied()), moved) {
        (Some(meant), _) => format!("did you mean {}?", join(section, meant)),
        (None, Some(moved)) => format!("did you mean {}?", moved.path),
        (None, None) if section.is_empty() => {
            format!("remove it; a file has {}", siblings.join(", "))
        }
        (None, None) => {
            format!("remove it; {} has {}", heading(section), siblings.join(", "))
        }
    }
}

/// What to do about a key that has to be set.
pub(super) fn remedy_of_missing(path: &str) -> String {
    KEYS.iter().find(|key| key.path == path).map_or_else(
        || "set it".to_owned(),
        |key| format!("write {} = {} in {}", key.name(), key.example, key.heading()),
    )
}
