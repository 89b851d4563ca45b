//! Every name that a file's production code writes, where it stands.

use std::collections::BTreeSet;

use proc_macro2::TokenStream;
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, Ident, ImplItem, Item, Meta, Path, QSelf, StaticMutability, Token,
    TraitItem, Type, UseTree, Visibility,
};

use crate::tokens;
use crate::tree::{attributes, is_left_out, says_where};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Path,
    /// A leaf of a `use`.
    Use,
    Macro,
    Method,
    /// One word among the tokens of a macro: a path, a variable or a keyword.
    Word,
}

/// A path as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) scope: Vec<String>,
    pub(crate) kind: Kind,
    /// Whether it begins with `::`.
    pub(crate) global: bool,
    /// `<>` stands for a type in angle brackets.
    pub(crate) segments: Vec<String>,
}

/// Another name for a path; without one it is `use path::*`.
#[derive(Debug)]
pub(crate) struct Alias {
    pub(crate) name: Option<String>,
    pub(crate) public: bool,
    pub(crate) target: Written,
}

/// A path of a type in angle brackets, and how many of the next path's segments are its trait's.
type Bracketed = (usize, Option<(bool, Vec<String>)>);

#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) scope: Vec<String>,
    pub(crate) written: Vec<Written>,
    pub(crate) aliases: Vec<Alias>,
    /// The `macro_rules!` that are defined here.
    pub(crate) macros: BTreeSet<String>,
    /// What is no name and yet not everywhere allowed.
    pub(crate) oddities: Vec<&'static str>,
    bracketed: Option<Bracketed>,
}

pub(crate) const STATIC_MUT: &str = "static mut";
pub(crate) const ASYNC: &str = "async";
pub(crate) const ELSEWHERE: &str = "a module in a file of another name";
pub(crate) const FROM_PARAMETERS: &str = "a path made of a macro's parameters";

/// Attributes whose strings are prose.
const PROSE: &[&str] = &["doc", "allow", "expect", "warn", "deny", "forbid", "deprecated"];

impl Names {
    pub(crate) fn of(module: &[String], file: &syn::File) -> Self {
        let mut names = Self { scope: module.to_owned(), ..Self::default() };
        names.visit_file(file);
        names
    }

    pub(crate) fn write(&mut self, kind: Kind, global: bool, segments: Vec<String>) {
        self.written.push(Written { scope: self.scope.clone(), kind, global, segments });
    }

    /// The tokens of a macro: as far as they can be parsed, and word by word besides.
    fn inside_macro(&mut self, stream: &TokenStream) {
        let tokens = tokens::without_dollars(stream.clone());
        let verbatim = |item: &Item| matches!(item, Item::Verbatim(_));
        if let Ok(file) = syn::parse2::<syn::File>(tokens.clone()) {
            file.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
            // What is left as tokens, as a `static` without a value, is read word by word below.
            file.items.iter().filter(|item| !verbatim(item)).for_each(|item| self.visit_item(item));
        } else if let Ok(statements) = parse_with(Block::parse_within, &tokens) {
            for statement in &statements {
                self.visit_stmt(statement);
            }
        } else if let Ok(arguments) = parse_with(Arguments::parse_terminated, &tokens) {
            for argument in &arguments {
                self.visit_expr(argument);
            }
        }
        tokens::scan(self, stream);
    }

    fn using(&mut self, tree: &UseTree, mut path: Vec<String>, global: bool, public: bool) {
        let (last, name) = match tree {
            UseTree::Path(deeper) => {
                path.push(text(&deeper.ident));
                return self.using(&deeper.tree, path, global, public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.using(tree, path.clone(), global, public);
                }
                return;
            }
            UseTree::Name(name) => (Some(text(&name.ident)), None),
            UseTree::Rename(name) => (Some(text(&name.ident)), Some(text(&name.rename))),
            UseTree::Glob(_) => (None, None),
        };
        let glob = last.is_none();
        // `use a::{self as b}` is `use a as b`.
        path.extend(last.filter(|last| path.is_empty() || last != "self"));
        let name = name.or_else(|| path.last().filter(|_| !glob).cloned());
        self.alias(name, public, Kind::Use, global, path);
    }

    fn alias(
        &mut self,
        name: Option<String>,
        public: bool,
        kind: Kind,
        global: bool,
        segments: Vec<String>,
    ) {
        self.write(kind, global, segments.clone());
        let target = Written { scope: self.scope.clone(), kind, global, segments };
        self.aliases.push(Alias { name, public, target });
    }
}

/// `r#name` is `name`.
pub(crate) fn text(ident: &Ident) -> String {
    ident.unraw().to_string()
}

type Arguments = Punctuated<Expr, Token![,]>;

fn parse_with<T>(
    parser: fn(syn::parse::ParseStream<'_>) -> syn::Result<T>,
    tokens: &TokenStream,
) -> syn::Result<T> {
    syn::parse::Parser::parse2(parser, tokens.clone())
}

fn segments(path: &Path) -> Vec<String> {
    path.segments.iter().map(|segment| text(&segment.ident)).collect()
}

fn plain(ty: &Type) -> Option<(bool, Vec<String>)> {
    let Type::Path(ty) = ty else { return None };
    ty.qself.is_none().then(|| (ty.path.leading_colon.is_some(), segments(&ty.path)))
}

const fn is_public(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_left_out(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_left_out(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes: &[Attribute] = match item {
            TraitItem::Fn(item) => &item.attrs,
            _ => &[],
        };
        if !is_left_out(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if says_where(item) {
            self.oddities.push(ELSEWHERE);
        }
        self.scope.push(text(&item.ident));
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let global = item.leading_colon.is_some();
        self.using(&item.tree, Vec::new(), global, is_public(&item.vis));
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let name = item.rename.as_ref().map_or(&item.ident, |(_, name)| name);
        let name = text(name);
        let of = text(&item.ident);
        if of == "self" {
            self.alias(Some(name), true, Kind::Use, false, vec!["crate".to_owned()]);
        } else {
            self.alias(Some(name), true, Kind::Use, true, vec![of]);
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        if let Some((global, path)) = plain(&item.ty) {
            let name = Some(text(&item.ident));
            self.alias(name, is_public(&item.vis), Kind::Path, global, path);
        }
        visit::visit_item_type(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        if !matches!(item.mutability, StaticMutability::None) {
            self.oddities.push(STATIC_MUT);
        }
        visit::visit_item_static(self, item);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.macros.extend(item.ident.as_ref().map(text));
        visit::visit_item_macro(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.oddities.push(ASYNC);
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.oddities.push(ASYNC);
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_await(&mut self, await_: &'ast syn::ExprAwait) {
        self.oddities.push(ASYNC);
        visit::visit_expr_await(self, await_);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.write(Kind::Method, false, vec![text(&call.method)]);
        visit::visit_expr_method_call(self, call);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !PROSE.iter().any(|prose| attribute.path().is_ident(prose)) {
            self.visit_path(attribute.path());
            match &attribute.meta {
                Meta::Path(_) => {}
                Meta::List(list) => tokens::scan_attribute(self, &list.tokens),
                Meta::NameValue(pair) => self.visit_expr(&pair.value),
            }
        }
    }

    fn visit_qself(&mut self, qself: &'ast QSelf) {
        visit::visit_qself(self, qself);
        self.bracketed = Some((qself.position, plain(&qself.ty)));
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let mut written = segments(path);
        let mut global = path.leading_colon.is_some();
        if let Some((position, ty)) = self.bracketed.take() {
            let rest = written.split_off(position);
            if !written.is_empty() {
                self.write(Kind::Path, global, written);
            }
            (global, written) = ty.unwrap_or_else(|| (false, vec!["<>".to_owned()]));
            written.extend(rest);
        }
        self.write(Kind::Path, global, written);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.write(Kind::Macro, call.path.leading_colon.is_some(), segments(&call.path));
        self.inside_macro(&call.tokens);
    }

    fn visit_token_stream(&mut self, stream: &'ast TokenStream) {
        self.inside_macro(stream);
    }
}
