//! The one table of all keys, with their defaults.
//!
//! Checks, suggestions, the example, the reference and the environment variables
//! (`CARDBRIDGE_<SECTION>__<KEY>`) are derived from it.

use toml::Value as TomlValue;

use super::value::{nearest, quote};
use crate::domain::Problem;

/// A key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// `reader[].match` is the key of every `[[reader]]`; `NAME` at the end stands for names that the
    /// site chooses.
    pub path: &'static str,
    /// The kind of its value.
    pub form: ValueKind,
    /// The default.
    pub fallback: DefaultValue,
    /// A value that shows how to set it, as TOML; the default where that shows it.
    pub example: &'static str,
    /// The description, one line.
    pub meaning: &'static str,
}

/// The kind of a key's value, as far as it decides how an environment variable is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A string: the variable as it is.
    Text,
    /// The variable as TOML, with a description of the type.
    Toml(&'static str),
}

/// The default of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// None: the key must be set.
    Required,
    /// None: the key is optional.
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
        let example = if let Value(value) = fallback { value } else { "" };
        Self { path, form, fallback, example, meaning }
    }

    const fn shown(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// The section of the key: `cm`, `cm.auth`, `rule[]`.
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

    /// The default as the reference shows it.
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

/// The prefix of every environment variable that sets a key.
const PREFIX: &str = "CARDBRIDGE_";

/// The variable that names the main file: the command line reads it.
const MAIN_FILE: &str = "CARDBRIDGE_CONFIG";

/// The end of a path that stands for names that the site chooses.
pub(super) const WILDCARD: &str = "NAME";

/// Keys of 0.1 that have another name now.
const RENAMED: [(&str, &str); 2] =
    [("reader[].settle", "removal_debounce"), ("audit.keep", "retention")];

/// The rules without a `[[rule]]`.
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
    KeySpec::new("station.id", Text, HostName, "Station name in the audit trail.").shown(r#""desk-3""#),

    KeySpec::new("cm.url", Text, Required, "URL of CM: `https://host` or `https://host:port`. `http` is allowed for loopback only.").shown(r#""https://cm.example.com""#),
    KeySpec::new("cm.api_path", Text, Value(r#""/CertificateManagement/api/v1.0""#), "Path of CM's REST API."),
    KeySpec::new("cm.timeout", Text, Value(r#""10s""#), "Timeout of one CM call, 10ms to 1h."),
    KeySpec::new("cm.connect_timeout", Text, Value(r#""3s""#), "Timeout for name resolution, TCP and TLS. Counts towards `cm.timeout`."),
    KeySpec::new("cm.concurrency", NUMBER, Value("4"), "Number of cards processed in parallel, 1 to 64. One card is never processed twice in parallel. With 2 or more, one place is kept for new insertions."),
    KeySpec::new("cm.ca_file", Text, Unset, "PEM file with additional trusted CA certificates.").shown(r#""/etc/cardbridge/cm-ca.pem""#),
    KeySpec::new("cm.proxy", Text, Unset, "Proxy for CM: `http://host:port`, `https://host:port` or `none`. Default: `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.").shown(r#""http://proxy.example.com:3128""#),
    KeySpec::new("cm.proxy_credentials_file", Text, Unset, "File with `user:password` for the proxy on one line. Reloaded when it changes.").shown(r#""/etc/cardbridge/proxy-credentials""#),

    KeySpec::new("cm.auth.method", Text, Value(r#""none""#), "Authentication method: `negotiate` (Kerberos), `oauth2`, `bearer` or `none`.").shown(r#""negotiate""#),
    KeySpec::new("cm.auth.keytab", Text, Unset, "Kerberos keytab of the station. Required for `negotiate`.").shown(r#""/etc/cardbridge/station.keytab""#),
    KeySpec::new("cm.auth.principal", Text, Unset, "Kerberos principal of the station. Default: the first principal in the keytab.").shown(r#""host/desk-3.example.com@EXAMPLE.COM""#),
    KeySpec::new("cm.auth.spn", Text, Unset, "Service principal name of CM's web server. Default: `HTTP/` and the host of `cm.url`.").shown(r#""HTTP/cm.example.com""#),
    KeySpec::new("cm.auth.channel_bindings", SWITCH, Unset, "Bind Kerberos to the TLS channel (Extended Protection). Default: true. Set false only behind a TLS-terminating proxy.").shown("true"),
    KeySpec::new("cm.auth.token_url", Text, Unset, "Token endpoint. Required for `oauth2`.").shown(r#""https://adfs.example.com/adfs/oauth2/token""#),
    KeySpec::new("cm.auth.client_id", Text, Unset, "OAuth 2.0 client id of the station. Required for `oauth2`.").shown(r#""cardbridge-desk-3""#),
    KeySpec::new("cm.auth.client_secret_file", Text, Unset, "File with the client secret for `oauth2`. Without it, the client certificate signs an assertion (`private_key_jwt`).").shown(r#""/etc/cardbridge/client-secret""#),
    KeySpec::new("cm.auth.use_windows_client_authentication", SWITCH, Unset, "For `oauth2`: authenticate to the token endpoint with Kerberos (`keytab`, `principal`) instead of a secret.").shown("false"),
    KeySpec::new("cm.auth.resource", Text, Unset, "`resource` parameter of the token request. AD FS requires the identifier of CM's Web API.").shown(r#""https://cm.example.com/CertificateManagement""#),
    KeySpec::new("cm.auth.scope", Text, Unset, "`scope` parameter of the token request; scopes separated by spaces.").shown(r#""openid""#),
    KeySpec::new("cm.auth.token_file", Text, Unset, "File with the bearer token. Required for `bearer`. Reloaded when it changes.").shown(r#""/etc/cardbridge/cm-token""#),
    KeySpec::new("cm.auth.client_cert_file", Text, Unset, "PEM file with the TLS client certificate and its chain. Works with any method. Reloaded when it changes.").shown(r#""/etc/cardbridge/client.pem""#),
    KeySpec::new("cm.auth.client_key_file", Text, Unset, "PEM file with the private key of that certificate, unencrypted.").shown(r#""/etc/cardbridge/client.key""#),

    KeySpec::new("cm.numbers.request_type.NAME", NUMBER, Unset, "CM's number for request type NAME. Adds a name or corrects a known one.").shown("12"),
    KeySpec::new("cm.numbers.card_status.NAME", NUMBER, Unset, "CM's number for card status NAME. Adds a name or corrects a known one.").shown("6"),
    KeySpec::new("cm.numbers.request_status.NAME", NUMBER, Unset, "CM's number for request status NAME. Adds a name or corrects a known one.").shown("18"),

    KeySpec::new("cards.families", LIST, Value(r#"["gids", "idprime", "piv", "openpgp", "pkcs15"]"#), "Card families to probe, in order. Omit a family to disable it."),
    KeySpec::new("cards.inventory", SWITCH, Value("true"), "Read the inventory of a card (ICCSN, CPLC and similar numbers, for information) after it is identified."),
    KeySpec::new("cards.skip_atr", LIST, Value("[]"), "ATR patterns (hex, `?` for one digit) of cards to ignore. Ignored cards are shown but never accessed.").shown(r#"["3b8f8001804f0ca00000030603????00000000??"]"#),
    KeySpec::new("cards.atr_mismatch", Text, Value(r#""warn""#), "Action if CM's ATR differs from the card's: `warn` (continue) or `refuse` (park the entry)."),

    KeySpec::new("card[].match", Text, Required, "ATR pattern (hex, `?` for one digit) of the cards this section applies to.").shown(r#""3bfd1300008131fe158073c021c057597562694b6579??""#),
    KeySpec::new("card[].families", LIST, Unset, "Families to probe for these cards, instead of `cards.families`. Default with `id_rule`: the family of that rule.").shown(r#"["piv"]"#),
    KeySpec::new("card[].id_rule", Text, Unset, "The only id rule to use for these cards, as `cardbridge read` shows it. Default: all rules.").shown(r#""piv-guid-le""#),

    KeySpec::new("reader[].match", Text, Required, "Glob on the PC/SC name (`*` any text, `?` one character). Prefix `vendor:` or `serial:` matches the driver's attributes. Case does not matter.").shown(r#""*Omnikey*""#),
    KeySpec::new("reader[].label", Text, Unset, "Display name of the reader. Default: its PC/SC name.").shown(r#""Desk 3, left""#),
    KeySpec::new("reader[].role", Text, Value(r#""desk""#), "Role of the reader, used by rules."),
    KeySpec::new("reader[].enabled", SWITCH, Value("true"), "Process cards in this reader."),
    KeySpec::new("reader[].removal_debounce", Text, Value(r#""0s""#), "Time a card may disappear without counting as removed, 0s to 5s. For contactless readers.").shown(r#""150ms""#),

    KeySpec::new("rule[].name", Text, Required, "Unique rule name, shown in the audit trail.").shown(r#""retire-at-the-desk""#),
    KeySpec::new("rule[].on", Text, Value(r#""inserted""#), "Trigger: `inserted` or `removed`."),
    KeySpec::new("rule[].request_type", LIST, Required, "Request types the rule applies to.").shown(r#"["Retire"]"#),
    KeySpec::new("rule[].set_status", Text, Required, "Card status to set in CM.").shown(r#""Retired""#),
    KeySpec::new("rule[].complete_request", SWITCH, Value("false"), "Also set the request to Completed after CM confirmed the card status."),
    KeySpec::new("rule[].card_status", LIST, Unset, "Apply only to records with one of these statuses. Default: any.").shown(r#"["Active"]"#),
    KeySpec::new("rule[].reader_role", LIST, Unset, "Apply only in readers with one of these roles. Default: any.").shown(r#"["desk"]"#),
    KeySpec::new("rule[].pick", Text, Value(r#""oldest""#), "If several open requests match: `oldest`, `newest`, or `refuse` (park as `ambiguous`)."),

    KeySpec::new("outbox.path", Text, Value(r#""/var/lib/cardbridge/outbox.db""#), "Database file of outbox and audit trail."),
    KeySpec::new("outbox.max_entries", NUMBER, Value("100000"), "Maximum number of entries, up to 10000000. Further entries are refused and logged as errors."),
    KeySpec::new("outbox.max_age", Text, Value(r#""30d""#), "Age at which a waiting entry is parked as `expired`. Only confirmed time counts: not the time while the machine is off, nor a jump of the clock."),
    KeySpec::new("outbox.retry_min", Text, Value(r#""1s""#), "Minimum retry back-off."),
    KeySpec::new("outbox.retry_max", Text, Value(r#""5m""#), "Maximum retry back-off."),

    KeySpec::new("audit.retention", Text, Value(r#""400d""#), "Retention time of audit lines, 1d to 100years. Lines of open entries are kept."),

    KeySpec::new("control.socket", Text, Value(r#""/run/cardbridge/control.sock""#), "Unix socket for `cardbridge status`, `outbox` and `audit`."),
    KeySpec::new("control.view_group", Text, Value(r#""cardbridge-view""#), "Group whose members may view the daemon's state through the socket."),
    KeySpec::new("control.operator_group", Text, Value(r#""cardbridge-operator""#), "Group whose members may view, and retry and discard entries."),
    KeySpec::new("control.metrics_listen", Text, Unset, "Loopback address and port for `/metrics`, in addition to the socket.").shown(r#""127.0.0.1:9475""#),

    KeySpec::new("log.level", Text, Value(r#""info""#), "Minimum level: `error`, `warn`, `info`, `debug` or `trace`."),
    KeySpec::new("log.format", Text, Value(r#""auto""#), "`text`, `json`, `journald` (one field per value), or `auto`: `journald` if standard error is the journal, else `text`."),
    KeySpec::new("log.show_ids", SWITCH, Value("true"), "`false` shortens card ids, serial numbers and user ids in the log."),
];

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyMatch {
    Key,
    Section,
    /// A list of tables.
    Tables,
    Nothing,
}

/// What `name` in `section` stands for.
pub(super) fn find(section: &str, name: &str) -> KeyMatch {
    let mut siblings = KEYS.iter().filter(|key| key.section() == section);
    if siblings.any(|key| key.name() == name || key.name() == WILDCARD) {
        return KeyMatch::Key;
    }
    // Dot and bracket separate names: a quoted name with one is no key.
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

/// The remedy for a name that is no key.
pub(super) fn remedy_of_unknown(section: &str, name: &str) -> String {
    let siblings = within(section);
    let path = join(section, name);
    let renamed = RENAMED.iter().find(|(old, _)| *old == path).map(|(_, new)| *new);
    let meant = renamed.or_else(|| nearest(name, siblings.iter().copied()));
    let moved = KEYS.iter().find(|key| key.name().eq_ignore_ascii_case(name));
    match (meant, moved) {
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

/// The remedy for a required key that is not set.
pub(super) fn remedy_of_missing(path: &str) -> String {
    KEYS.iter().find(|key| key.path == path).map_or_else(
        || "set it".to_owned(),
        |key| format!("write {} = {} in {}", key.name(), key.example, key.heading()),
    )
}

/// The key that an environment variable sets, and its value.
pub(super) struct EnvSetting {
    pub(super) path: String,
    pub(super) value: TomlValue,
}

/// What a variable sets; `None` for a variable of another program. A problem comes with the path of
/// the key, where there is one.
pub(super) fn read_variable(
    name: &str,
    text: &str,
) -> Result<Option<EnvSetting>, (String, Problem)> {
    if !name.starts_with(PREFIX) || name == MAIN_FILE {
        return Ok(None);
    }
    let (key, path) = key_of(name).ok_or_else(|| (String::new(), unknown_variable(name)))?;
    let value = match (key.form, text.parse()) {
        (Text, _) => TomlValue::String(text.to_owned()),
        (ValueKind::Toml(_), Ok(value)) => value,
        (ValueKind::Toml(wanted), Err(_)) => {
            let what = format!("{} is not {wanted}", quote(text));
            let path = path.escape_debug().to_string();
            return Err((path, Problem::new(what, "correct the variable, or unset it")));
        }
    };
    Ok(Some(EnvSetting { path, value }))
}

fn key_of(name: &str) -> Option<(&'static KeySpec, String)> {
    KEYS.iter().find_map(|key| {
        let variable = key.variable()?;
        if let Some(section) = variable.strip_suffix(WILDCARD) {
            let chosen = name.strip_prefix(section).filter(|chosen| !chosen.is_empty())?;
            return Some((key, format!("{}.{chosen}", key.section())));
        }
        (variable == name).then(|| (key, key.path.to_owned()))
    })
}

fn unknown_variable(name: &str) -> Problem {
    let lists = KEYS.iter().map(KeySpec::list).filter(|list| !list.is_empty());
    for list in lists.map(|list| list.trim_end_matches("[]")) {
        if name.starts_with(&format!("{PREFIX}{}", list.to_ascii_uppercase())) {
            let what = format!("no variable sets the keys of a {list}");
            return Problem::new(what, format!("unset it, and write [[{list}]] in a file"));
        }
    }
    let short = |variable: &str| variable.strip_prefix(PREFIX).unwrap_or(variable).to_owned();
    let known: Vec<_> =
        KEYS.iter().filter_map(KeySpec::variable).map(|name| short(&name)).collect();
    let renamed = RENAMED.iter().find_map(|(old, new)| {
        let (section, name_of_old) = old.rsplit_once('.')?;
        let variable = |key: &str| join(section, key).to_ascii_uppercase().replace('.', "__");
        (variable(name_of_old) == short(name)).then(|| variable(new))
    });
    let meant = nearest(&short(name), known.iter().map(String::as_str)).map(str::to_owned);
    let remedy = match renamed.or(meant) {
        Some(meant) => format!("did you mean {PREFIX}{meant}?"),
        None => format!("unset it, or write {PREFIX}<SECTION>__<KEY>, such as {PREFIX}CM__URL"),
    };
    Problem::new("names no key of the configuration", remedy)
}
