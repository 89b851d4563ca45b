//! Names among the tokens of macros and attributes, which mean something only to their macro.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Ident, LitStr};

use crate::names::{ASYNC, FROM_PARAMETERS, Kind, Names, STATIC_MUT, text};

/// Keys of attributes whose strings name nothing, and those whose strings are paths even if they
/// are one word.
const LABELS: &[&str] = &["doc", "reason", "rename", "rename_all", "alias", "tag", "content"];
const PATHS: &[&str] = &["with", "crate"];

/// `$crate::x` becomes `crate::x`, and `$name` becomes `name`.
pub(crate) fn without_dollars(stream: TokenStream) -> TokenStream {
    let kept = stream.into_iter().filter(|token| !is(Some(token), '$'));
    kept.map(|token| match token {
        TokenTree::Group(group) => {
            TokenTree::Group(Group::new(group.delimiter(), without_dollars(group.stream())))
        }
        TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => token,
    })
    .collect()
}

pub(crate) fn scan(names: &mut Names, stream: &TokenStream) {
    parameters(names, stream.clone());
    Scan { names, prefix: Vec::new(), attribute: false }.level(without_dollars(stream.clone()));
}

pub(crate) fn scan_attribute(names: &mut Names, stream: &TokenStream) {
    Scan { names, prefix: Vec::new(), attribute: true }.level(without_dollars(stream.clone()));
}

/// Looks for `::$name`: what it stands for is seen nowhere.
fn parameters(names: &mut Names, stream: TokenStream) {
    let tokens: Vec<_> = stream.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            parameters(names, group.stream());
        }
        let after_colons = at > 1 && is(tokens.get(at - 1), ':') && is(tokens.get(at - 2), ':');
        if is(Some(token), '$') && after_colons && word(tokens.get(at + 1)).is_some() {
            names.oddities.push(FROM_PARAMETERS);
        }
    }
}

struct Scan<'a> {
    names: &'a mut Names,
    /// What stands before `::{…}` around these tokens.
    prefix: Vec<String>,
    attribute: bool,
}

impl Scan<'_> {
    fn level(&mut self, stream: TokenStream) {
        let tokens: Vec<_> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.token(&tokens, at);
        }
    }

    /// Reads what begins at `at`, and answers where the next begins.
    fn token(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let hash = at.checked_sub(1).and_then(|before| tokens.get(before));
                let attribute = self.attribute || is(hash, '#');
                self.group(group, Vec::new(), attribute);
                at + 1
            }
            TokenTree::Punct(_) if colons(tokens, at) && word(tokens.get(at + 2)).is_some() => {
                let bracket = at > 0 && is(tokens.get(at - 1), '>');
                let before = if bracket { vec!["<>".to_owned()] } else { Vec::new() };
                self.path(tokens, at + 2, before, !bracket)
            }
            TokenTree::Punct(_) if is_method(tokens, at) => {
                self.names
                    .oddities
                    .extend(word(tokens.get(at + 1)).filter(|w| w == "await").map(|_| ASYNC));
                let called = matches!(tokens.get(at + 2), Some(TokenTree::Group(_)));
                if called || colons(tokens, at + 2) {
                    let method = word(tokens.get(at + 1)).into_iter().collect();
                    self.names.write(Kind::Method, false, method);
                }
                at + 2
            }
            TokenTree::Punct(_) => at + 1,
            TokenTree::Ident(ident) => self.ident(&text(ident), tokens, at),
            TokenTree::Literal(literal) => {
                if self.attribute && at > 1 && is(tokens.get(at - 1), '=') {
                    self.string(&literal.to_string(), word(tokens.get(at - 2)));
                }
                at + 1
            }
        }
    }

    fn ident(&mut self, ident: &str, tokens: &[TokenTree], at: usize) -> usize {
        let next = tokens.get(at + 1);
        match ident {
            "pub" if next.is_some_and(is_visibility) => return at + 2,
            "async" => self.names.oddities.push(ASYNC),
            "static" if word(next).is_some_and(|next| next == "mut") => {
                self.names.oddities.push(STATIC_MUT);
            }
            "use" => {
                let end = tokens[at..].iter().position(|token| is(Some(token), ';'));
                let item = end.map(|end| tokens[at..=at + end].iter().cloned().collect());
                if let Some(Ok(item)) = item.map(syn::parse2) {
                    self.names.visit_item_use(&item);
                    return at + end.unwrap_or_default();
                }
            }
            _ => {}
        }
        self.path(tokens, at, Vec::new(), false)
    }

    /// Reads the path whose next word is at `at`.
    fn path(
        &mut self,
        tokens: &[TokenTree],
        mut at: usize,
        before: Vec<String>,
        global: bool,
    ) -> usize {
        let mut path: Vec<_> = self.prefix.iter().cloned().chain(before).collect();
        path.extend(word(tokens.get(at)));
        at += 1;
        while colons(tokens, at) {
            if let Some(TokenTree::Group(group)) = tokens.get(at + 2) {
                self.group(group, path.clone(), self.attribute);
                at += 3;
            } else if let Some(next) = word(tokens.get(at + 2)) {
                path.push(next);
                at += 3;
            } else {
                break;
            }
        }
        let called = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
        let keyword = path.last().is_some_and(|word| syn::parse_str::<Ident>(word).is_err());
        let bang = is(tokens.get(at), '!') && called && !keyword;
        let label = is(tokens.get(at), '=') && !is(tokens.get(at + 1), '=');
        let kind = match path.len() {
            1 if !global && label => return at,
            _ if bang => Kind::Macro,
            1 if !global => Kind::Word,
            _ => Kind::Path,
        };
        self.names.write(kind, global, path);
        at
    }

    fn group(&mut self, group: &Group, prefix: Vec<String>, attribute: bool) {
        Scan { names: self.names, prefix, attribute }.level(group.stream());
    }

    fn string(&mut self, literal: &str, key: Option<String>) {
        let key = key.unwrap_or_default();
        let text = syn::parse_str::<LitStr>(literal).map(|literal| literal.value());
        let tokens = text.ok().and_then(|text| text.parse::<TokenStream>().ok());
        let Some(tokens) = tokens.filter(|_| !LABELS.contains(&key.as_str())) else { return };
        let first = self.names.written.len();
        self.group(&Group::new(Delimiter::None, tokens), Vec::new(), false);
        if !PATHS.contains(&key.as_str()) {
            let found = self.names.written.split_off(first);
            self.names.written.extend(found.into_iter().filter(|name| name.kind != Kind::Word));
        }
    }
}

fn is(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(text(ident)),
        _ => None,
    }
}

fn colons(tokens: &[TokenTree], at: usize) -> bool {
    is(tokens.get(at), ':') && is(tokens.get(at + 1), ':')
}

/// `.name`, which `..name` is not.
fn is_method(tokens: &[TokenTree], at: usize) -> bool {
    let range = at > 0 && is(tokens.get(at - 1), '.');
    is(tokens.get(at), '.') && !range && word(tokens.get(at + 1)).is_some()
}

/// `(crate)`, `(super)`, `(self)` and `(in …)` after `pub`.
fn is_visibility(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let tokens: Vec<_> = group.stream().into_iter().collect();
    let first = word(tokens.first()).unwrap_or_default();
    first == "in" || (tokens.len() == 1 && ["crate", "super", "self"].contains(&first.as_str()))
}
