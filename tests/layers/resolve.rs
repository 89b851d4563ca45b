//! What a path means: from `crate::`, `self::`, `super::`, crates, `use` and `type` to the full
//! names that it can stand for. Where Rust would choose one of several, all are kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{Alias, Kind, Written};

/// From `crate` or from an external crate on.
pub(crate) type Full = Vec<String>;

/// Longer chains of names are not followed; every link of one is held where it stands.
const LONGEST: usize = 24;

pub(crate) struct Resolver {
    crates: BTreeSet<String>,
    named: BTreeMap<Full, Vec<Alias>>,
    globs: BTreeMap<Vec<String>, Vec<Alias>>,
}

impl Resolver {
    pub(crate) fn new(crates: BTreeSet<String>, aliases: impl IntoIterator<Item = Alias>) -> Self {
        let mut resolver = Self { crates, named: BTreeMap::new(), globs: BTreeMap::new() };
        for alias in aliases {
            let scope = alias.target.scope.clone();
            if let Some(name) = alias.name.clone() {
                let key = scope.into_iter().chain([name]).collect();
                resolver.named.entry(key).or_default().push(alias);
            } else {
                resolver.globs.entry(scope).or_default().push(alias);
            }
        }
        resolver
    }

    /// Everything that a path may stand for, and every step on the way there.
    pub(crate) fn resolve(&self, written: &Written) -> BTreeSet<Full> {
        let mut found = BTreeSet::new();
        let mut open = self.absolute(written);
        while let Some(full) = open.pop() {
            if full.len() <= LONGEST && found.insert(full.clone()) {
                open.extend(self.other_names(&full, &written.scope));
            }
        }
        found
    }

    /// The path from its root on, before any alias is looked up.
    fn absolute(&self, written: &Written) -> Vec<Full> {
        let Written { scope, segments, .. } = written;
        let Some(first) = segments.first() else { return vec![vec!["crate".to_owned()]] };
        if written.global {
            return vec![external(segments)];
        }
        let mut scope = scope.as_slice();
        let mut rest = segments.as_slice();
        if first == "crate" {
            scope = &[];
            rest = &segments[1..];
        }
        while let Some((word, after)) = rest.split_first() {
            match word.as_str() {
                "super" => scope = scope.split_last().map_or(&[], |(_, outside)| outside),
                "self" => {}
                _ => break,
            }
            rest = after;
        }
        let mut found = vec![joined(&["crate".to_owned()], &joined(scope, rest))];
        let whole = matches!(written.kind, Kind::Use | Kind::Word);
        if self.crates.contains(first) && (whole || segments.len() > 1) {
            found.push(external(segments));
        }
        found
    }

    /// What a path within this crate is called where its parts were brought in from elsewhere.
    fn other_names(&self, full: &[String], from: &[String]) -> Vec<Full> {
        let mut found = Vec::new();
        let inside = full.strip_prefix(&["crate".to_owned()]).unwrap_or_default();
        for at in 0..inside.len() {
            let (scope, rest) = inside.split_at(at);
            let visible = |alias: &&Alias| alias.public || from.starts_with(scope);
            let named = self.named.get(&inside[..=at]).into_iter().flatten().filter(visible);
            for alias in named {
                let roots = self.absolute(&alias.target);
                found.extend(roots.iter().map(|root| joined(root, &rest[1..])));
            }
            for alias in self.globs.get(scope).into_iter().flatten().filter(visible) {
                let roots = self.absolute(&alias.target);
                found.extend(roots.iter().map(|root| joined(root, rest)));
            }
        }
        found
    }
}

fn joined(front: &[String], back: &[String]) -> Full {
    [front, back].concat()
}

/// `core` and `alloc` are parts of `std`.
fn external(segments: &[String]) -> Full {
    let mut full = segments.to_vec();
    if let Some(first) =
        full.first_mut().filter(|first| ["core", "alloc"].contains(&first.as_str()))
    {
        "std".clone_into(first);
    }
    full
}
