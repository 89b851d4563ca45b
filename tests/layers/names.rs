//! The paths that production code writes, and the items that they mean.
//!
//! Code is read as tokens, so that macros and attributes are read like all else: a path is a row
//! of words with `::` between them. Where Rust would choose one of several meanings, all are kept.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

pub(crate) type Path = Vec<String>;

/// Texts by their path below `src`.
pub(crate) type Sources = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Path,
    Use,
    /// A `use` that others may name.
    Reexport,
    Macro,
    Method,
}

/// A path, as it is written in the module `scope`.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) kind: Kind,
    scope: Path,
    pub(crate) path: Path,
    /// Everything that it may stand for, from `crate` or an external crate on, with every step
    /// that leads there.
    pub(crate) meanings: BTreeSet<Path>,
}

/// A file of production code.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) module: Path,
    pub(crate) written: Vec<Written>,
    pub(crate) items: BTreeSet<Path>,
    /// The names of its types.
    pub(crate) types: Vec<String>,
}

/// All production code that `lib.rs` reaches.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) files: BTreeMap<String, File>,
    crates: Vec<String>,
    /// What `use` and `type` give another name; `use path::*` gives the name `*`.
    aliases: BTreeMap<Path, Vec<Written>>,
}

impl Names {
    pub(crate) fn read(sources: &Sources, crates: &[String]) -> Self {
        let mut names = Self { crates: crates.to_vec(), ..Self::default() };
        let mut files = BTreeMap::new();
        let mut open = vec![("lib.rs".to_owned(), Path::new())];
        while let Some((path, module)) = open.pop() {
            let file = File { module: module.clone(), ..File::default() };
            let mut scan = Scan { names: &mut names, file, scope: module, modules: Vec::new() };
            let text = sources.get(&path).unwrap_or_else(|| panic!("there is no {path}"));
            scan.level(parse(&path, text), true);
            let Scan { file, modules, .. } = scan;
            open.extend(modules.into_iter().map(|module| (module.join("/") + ".rs", module)));
            files.insert(path, file);
        }
        for written in files.values_mut().flat_map(|file| &mut file.written) {
            written.meanings = names.meanings(written);
        }
        Self { files, ..names }
    }

    fn meanings(&self, written: &Written) -> BTreeSet<Path> {
        let mut found = BTreeSet::new();
        let mut open = self.absolute(written);
        while let Some(full) = open.pop() {
            // Longer chains of aliases are not followed.
            if full.len() < 24 && found.insert(full.clone()) {
                open.extend(self.other_names(&full));
            }
        }
        found
    }

    fn absolute(&self, Written { kind, scope, path, .. }: &Written) -> Vec<Path> {
        let (mut scope, mut rest) = (scope.as_slice(), path.as_slice());
        while let [first, after @ ..] = rest {
            match first.as_str() {
                "crate" => scope = &[],
                "super" => scope = scope.split_last().map_or(&[], |(_, outside)| outside),
                "self" => {}
                _ => break,
            }
            rest = after;
        }
        let mut found = vec![[&["crate".to_owned()], scope, rest].concat()];
        let whole = matches!(kind, Kind::Use | Kind::Reexport) || path.len() > 1;
        if whole && self.crates.contains(&path[0]) {
            let mut path = path.clone();
            if ["core", "alloc"].contains(&path[0].as_str()) {
                "std".clone_into(&mut path[0]);
            }
            found.push(path);
        }
        found
    }

    fn other_names(&self, full: &[String]) -> Vec<Path> {
        let mut found = Vec::new();
        for at in 1..full.len() {
            let glob = [&full[..at], &["*".to_owned()]].concat();
            for (key, rest) in [(&full[..=at], &full[at + 1..]), (&glob, &full[at..])] {
                let aliases = self.aliases.get(key).into_iter().flatten();
                let roots = aliases.flat_map(|alias| self.absolute(alias));
                found.extend(roots.map(|root| [&root, rest].concat()));
            }
        }
        found
    }
}

/// Reads one file.
struct Scan<'a> {
    names: &'a mut Names,
    file: File,
    /// The module that the tokens stand in.
    scope: Path,
    /// Modules in files of their own.
    modules: Vec<Path>,
}

impl Scan<'_> {
    /// Reads the tokens between two brackets; `items` where they are a module's.
    fn level(&mut self, tokens: TokenStream, items: bool) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match word(&tokens, at) {
                Some(word) => self.word(&word, &tokens, at, items),
                None => self.other(&tokens, at),
            };
        }
    }

    /// Reads what begins with a word, and returns where the next begins.
    fn word(&mut self, first: &str, tokens: &[TokenTree], at: usize, items: bool) -> usize {
        let next = word(tokens, at + 1);
        match (first, next) {
            ("pub", _) => {
                let restricted = group(tokens, at + 1, Delimiter::Parenthesis).is_some();
                let at = at + 1 + usize::from(restricted);
                if word(tokens, at).is_some_and(|word| word == "use") {
                    return self.path(Kind::Reexport, tokens, at + 1, Path::new());
                }
                at
            }
            ("use", _) => self.path(Kind::Use, tokens, at + 1, Path::new()),
            ("mod", Some(name)) if items => {
                self.scope.push(name);
                match group(tokens, at + 2, Delimiter::Brace) {
                    Some(group) => self.level(group.stream(), true),
                    None => self.modules.push(self.scope.clone()),
                }
                self.scope.pop();
                at + 3
            }
            ("struct" | "enum" | "union" | "trait" | "type", Some(name)) if items => {
                if first == "type" && is(tokens, at + 2, '=') {
                    let from = self.file.written.len();
                    self.path(Kind::Path, tokens, at + 3, Path::new());
                    if let Some(target) = self.file.written.get(from).cloned() {
                        self.alias(&name, target);
                    }
                }
                self.file.types.push(name.clone());
                self.item(&name);
                at + 2
            }
            ("fn" | "const" | "static", Some(name)) if items && name != "fn" => {
                self.item(&name);
                at + 2
            }
            ("macro_rules", _) => {
                if let Some(name) = word(tokens, at + 2) {
                    self.item(&name);
                }
                let rules = group(tokens, at + 3, Delimiter::Brace).map(Group::stream);
                for rule in rules.into_iter().flatten() {
                    if let TokenTree::Group(rule) = rule {
                        self.level(rule.stream(), true);
                    }
                }
                at + 4
            }
            _ => {
                let made = group(tokens, at + 2, Delimiter::Brace);
                let made = made.filter(|_| items && is(tokens, at + 1, '!')).map(Group::stream);
                for name in made.into_iter().flatten().map(|token| token.to_string()) {
                    // A type that a macro makes.
                    if name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase) {
                        self.item(&name);
                        self.file.types.push(name);
                    }
                }
                self.path(Kind::Path, tokens, at, Path::new())
            }
        }
    }

    fn other(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let before = |character| at > 0 && is(tokens, at - 1, character);
        match &tokens[at] {
            TokenTree::Punct(_) if is(tokens, at, '#') => {
                let Some(attribute) = group(tokens, at + 1, Delimiter::Bracket) else {
                    return at + 1;
                };
                let text = attribute.to_string().replace(' ', "");
                if ["[cfg(test)]", "[cfg(fuzzing)]", "[cfg(doc)]"].contains(&text.as_str()) {
                    let body = |at| group(tokens, at, Delimiter::Brace).is_some();
                    let end = (at..tokens.len()).find(|at| is(tokens, *at, ';') || body(*at));
                    return end.unwrap_or(tokens.len()) + 1;
                }
                if !["[doc", "[expect", "[allow"].iter().any(|prose| text.starts_with(prose)) {
                    self.level(attribute.stream(), false);
                    // `with = "crate::x"`
                    let texts = text.split('"').filter(|text| text.contains("::"));
                    let paths = texts.filter_map(|text| text.parse().ok());
                    paths.for_each(|path| self.level(path, false));
                }
                return at + 2;
            }
            TokenTree::Punct(_) if is(tokens, at, ':') && is(tokens, at + 1, ':') => {
                let bracket = if before('>') { vec!["<>".to_owned()] } else { Path::new() };
                return self.path(Kind::Path, tokens, at + 2, bracket);
            }
            TokenTree::Punct(_) if is(tokens, at, '.') && !before('.') => {
                if let Some(name) = word(tokens, at + 1) {
                    let called = group(tokens, at + 2, Delimiter::Parenthesis).is_some();
                    if called || is(tokens, at + 2, ':') || name == "await" {
                        self.write(Kind::Method, vec![name]);
                    }
                    return at + 2;
                }
            }
            TokenTree::Group(group) => self.level(group.stream(), false),
            _ => {}
        }
        at + 1
    }

    /// Reads the rest of a path, and what `use` may have at its end: `::*`, `as` or a group.
    fn path(&mut self, kind: Kind, tokens: &[TokenTree], mut at: usize, mut path: Path) -> usize {
        while is(tokens, at, ':') || is(tokens, at, '$') {
            at += 1;
        }
        while let Some(next) = word(tokens, at) {
            path.push(next);
            at += 1;
            if !(is(tokens, at, ':') && is(tokens, at + 1, ':')) {
                break;
            }
            at += 2;
        }
        let last = path.last().cloned().unwrap_or_default();
        if kind == Kind::Path {
            let keyword = ["if", "while", "match", "return", "in"].contains(&last.as_str());
            let is_call = matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) && !keyword;
            let kind = if is_call && is(tokens, at, '!') { Kind::Macro } else { kind };
            self.write(kind, path);
        } else if let Some(group) = group(tokens, at, Delimiter::Brace) {
            let tokens: Vec<_> = group.stream().into_iter().collect();
            let mut inner = 0;
            while inner < tokens.len() {
                inner = self.path(kind, &tokens, inner, path.clone()) + 1;
            }
            at += 1;
        } else if !path.is_empty() {
            if path.len() > 1 && last == "self" {
                path.pop();
            }
            let glob = is(tokens, at, '*').then(|| "*".to_owned());
            let renamed = word(tokens, at).and_then(|_| word(tokens, at + 1));
            at += glob.iter().count() + 2 * renamed.iter().count();
            let name = glob.or(renamed).or_else(|| path.last().cloned()).unwrap_or_default();
            self.write(kind, path);
            if let Some(target) = self.file.written.last().cloned() {
                self.alias(&name, target);
            }
        }
        at
    }

    fn item(&mut self, name: &str) {
        self.file.items.insert(within(&self.scope, name));
    }

    fn alias(&mut self, name: &str, target: Written) {
        self.names.aliases.entry(within(&self.scope, name)).or_default().push(target);
    }

    fn write(&mut self, kind: Kind, path: Path) {
        if path.last().is_some_and(|last| last != "<>") {
            let (scope, meanings) = (self.scope.clone(), BTreeSet::new());
            self.file.written.push(Written { kind, scope, path, meanings });
        }
    }
}

/// A name of the module `scope`, from `crate` on.
fn within(scope: &[String], name: &str) -> Path {
    [&["crate".to_owned()], scope, &[name.to_owned()]].concat()
}

pub(crate) fn parse(path: &str, text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every word of the tokens.
pub(crate) fn words(tokens: TokenStream) -> Vec<String> {
    let words = tokens.into_iter().flat_map(|token| match token {
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Ident(ident) => vec![ident.to_string()],
        _ => Vec::new(),
    });
    words.collect()
}

fn is(tokens: &[TokenTree], at: usize, character: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn word(tokens: &[TokenTree], at: usize) -> Option<String> {
    let Some(TokenTree::Ident(ident)) = tokens.get(at) else { return None };
    Some(ident.to_string().trim_start_matches("r#").to_owned())
}

fn group(tokens: &[TokenTree], at: usize, delimiter: Delimiter) -> Option<&Group> {
    let Some(TokenTree::Group(group)) = tokens.get(at) else { return None };
    (group.delimiter() == delimiter).then_some(group)
}
