//! The files of a crate, found as the compiler finds them: from `mod x;` to `mod x;`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::{Attribute, Item, ItemMod, Meta, Token};

use crate::names::text;

/// Texts by their path below `src`.
pub(crate) type Sources = BTreeMap<PathBuf, String>;

/// One file, and the module that it is.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) module: Vec<String>,
    /// Whether only tests have it.
    pub(crate) test: bool,
    pub(crate) syntax: syn::File,
}

/// Everything below a directory that ends in `.rs`.
pub(crate) fn read(directory: &Path) -> Sources {
    let mut sources = Sources::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.insert(path.strip_prefix(directory).unwrap().to_owned(), text);
            }
        }
    }
    sources
}

/// What can be reached from the file `root`, which is the module `module`.
pub(crate) fn reach(sources: &Sources, root: &str, module: &[&str]) -> Vec<File> {
    let module = module.iter().map(|&name| name.to_owned()).collect();
    let mut walk = Walk { sources, found: Vec::new() };
    walk.file(PathBuf::from(root), module, Path::new(""), false);
    walk.found
}

struct Walk<'a> {
    sources: &'a Sources,
    found: Vec<File>,
}

impl Walk<'_> {
    fn file(&mut self, path: PathBuf, module: Vec<String>, below: &Path, test: bool) {
        let text = &self.sources[&path];
        let syntax = syn::parse_file(text);
        let syntax = syntax.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let test = test || is_left_out(&syntax.attrs);
        self.modules(&syntax.items, &module, below, test);
        self.found.push(File { path, module, test, syntax });
    }

    fn modules(&mut self, items: &[Item], module: &[String], below: &Path, test: bool) {
        for item in items {
            let Item::Mod(item) = item else { continue };
            let name = text(&item.ident);
            let module: Vec<_> = module.iter().cloned().chain([name.clone()]).collect();
            let test = test || is_left_out(&item.attrs);
            let inside = below.join(&name);
            if let Some((_, items)) = &item.content {
                self.modules(items, &module, &inside, test);
            } else if !says_where(item) {
                let beside = below.join(format!("{name}.rs"));
                let beside = Some(beside).filter(|path| self.sources.contains_key(path));
                self.file(beside.unwrap_or(inside.join("mod.rs")), module, &inside, test);
            }
        }
    }
}

/// Whether a module is to be read from a file of another name.
pub(crate) fn says_where(item: &ItemMod) -> bool {
    item.attrs.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg_attr") => {
            list.tokens.clone().into_iter().any(|token| token.to_string() == "path")
        }
        meta => meta.path().is_ident("path"),
    })
}

/// Whether the attributes keep something out of the program: tests, and what only its
/// documentation names.
pub(crate) fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        attribute.parse_args().is_ok_and(|condition: Meta| never_in_the_program(&condition))
    })
}

fn never_in_the_program(condition: &Meta) -> bool {
    let path = condition.path();
    if let Meta::List(list) = condition {
        let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        let mut parts = parts.iter().flatten();
        (path.is_ident("all") && parts.clone().any(never_in_the_program))
            || (path.is_ident("any") && parts.all(never_in_the_program))
    } else {
        path.is_ident("test") || path.is_ident("doc")
    }
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    use syn::{
        ItemConst, ItemEnum, ItemExternCrate, ItemFn, ItemForeignMod, ItemImpl, ItemMacro,
        ItemStatic, ItemStruct, ItemTrait, ItemTraitAlias, ItemType, ItemUnion, ItemUse,
    };

    match item {
        Item::Const(ItemConst { attrs, .. })
        | Item::Enum(ItemEnum { attrs, .. })
        | Item::ExternCrate(ItemExternCrate { attrs, .. })
        | Item::Fn(ItemFn { attrs, .. })
        | Item::ForeignMod(ItemForeignMod { attrs, .. })
        | Item::Impl(ItemImpl { attrs, .. })
        | Item::Macro(ItemMacro { attrs, .. })
        | Item::Mod(ItemMod { attrs, .. })
        | Item::Static(ItemStatic { attrs, .. })
        | Item::Struct(ItemStruct { attrs, .. })
        | Item::Trait(ItemTrait { attrs, .. })
        | Item::TraitAlias(ItemTraitAlias { attrs, .. })
        | Item::Type(ItemType { attrs, .. })
        | Item::Union(ItemUnion { attrs, .. })
        | Item::Use(ItemUse { attrs, .. }) => attrs,
        _ => &[],
    }
}
