//! A Rust file read once: its words without comments and strings, its functions, the lines that only tests see.
//! Knows no rule.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A Rust file.
pub(super) struct Source {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    /// Everything in it.
    pub(super) text: String,
    /// Whether the whole file is a test's.
    pub(super) test: bool,
    /// Its words.
    pub(super) words: Vec<Word>,
    /// Its functions, those of tests too.
    pub(super) functions: Vec<Function>,
    /// Lines on which a token comes first, with the column of that token.
    pub(super) indents: Vec<(usize, usize)>,
    /// Modules that it declares for tests only and that have a file of their own.
    pub(super) test_modules: Vec<String>,
    test_lines: Vec<RangeInclusive<usize>>,
}

/// What a word is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A path, a name, a keyword.
    Path,
    /// The name of a macro that is called.
    Macro,
    /// The name of an attribute.
    Attribute,
}

/// A path such as `std::net::UdpSocket`, or a single name.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// Its segments.
    pub(super) segments: Vec<String>,
    /// Where it stands.
    pub(super) line: usize,
    /// What it is used as.
    pub(super) used_as: Use,
}

/// A function's measures.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// Its name.
    pub(super) name: String,
    /// Where `fn` stands.
    pub(super) line: usize,
    /// From `fn` to the closing brace.
    pub(super) lines: usize,
    /// Without `self`.
    pub(super) arguments: usize,
}

impl Source {
    /// Read a file.
    pub(super) fn parse(path: &str, text: &str) -> Result<Source, syn::Error> {
        let file = syn::parse_file(text)?;
        let tokens: TokenStream = text.parse()?;
        let mut reader = Reader::default();
        reader.visit_file(&file);
        let (mut words, mut indents) = (reader.imports, Vec::new());
        read_words(tokens.clone(), &mut words);
        read_indents(tokens, &mut 0, &mut indents);
        Ok(Source {
            path: path.to_owned(),
            text: text.to_owned(),
            test: is_test_path(path),
            words,
            functions: reader.functions,
            indents,
            test_modules: reader.test_modules,
            test_lines: reader.test_lines,
        })
    }

    /// The crate's directory under `crates/`.
    pub(super) fn member(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether only tests see this line.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// How many lines there are without those that only tests see.
    pub(super) fn lines(&self) -> usize {
        (1..=self.text.lines().count()).filter(|&line| !self.is_test(line)).count()
    }

    /// Where the file of a module that it declares would be.
    pub(super) fn module_files(&self, module: &str) -> [String; 2] {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let folder = match file {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            other => format!("{folder}/{}", other.trim_end_matches(".rs")),
        };
        [format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")]
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
}

/// Every path and name in the tokens, those in macro calls too; literals (doc comments among them) are left out.
fn read_words(tokens: TokenStream, words: &mut Vec<Word>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(_) => at = read_path(&tokens, at, words),
            TokenTree::Group(group) => {
                let from = words.len();
                read_words(group.stream(), words);
                if group.delimiter() == Delimiter::Bracket
                    && opens_attribute(&tokens[..at])
                    && let Some(name) = words.get_mut(from)
                {
                    name.used_as = Use::Attribute;
                }
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Read the path that begins at `at`; returns where it ends.
fn read_path(tokens: &[TokenTree], mut at: usize, words: &mut Vec<Word>) -> usize {
    let line = tokens[at].span().start().line;
    let mut segments = Vec::new();
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        segments.push(name.to_string());
        at += 1;
        let goes_on = matches!(tokens.get(at + 2), Some(TokenTree::Ident(_)));
        if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':') && goes_on) {
            break;
        }
        at += 2;
    }
    let used_as = match tokens.get(at) {
        Some(TokenTree::Punct(mark)) if mark.as_char() == '!' && mark.spacing() == Spacing::Alone => Use::Macro,
        _ => Use::Path,
    };
    words.push(Word { segments, line, used_as });
    at
}

fn is_punct(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// Whether these tokens end in `#` or `#!`.
fn opens_attribute(before: &[TokenTree]) -> bool {
    let before = if is_punct(before.last(), '!') { &before[..before.len() - 1] } else { before };
    is_punct(before.last(), '#')
}

/// For every line that a token begins: the line and the token's column.
fn read_indents(tokens: TokenStream, last: &mut usize, indents: &mut Vec<(usize, usize)>) {
    let mut see = |start: proc_macro2::LineColumn, end: proc_macro2::LineColumn, last: &mut usize| {
        if start.line > *last {
            indents.push((start.line, start.column));
        }
        *last = end.line.max(*last);
    };
    let mut inner = Vec::new();
    for token in tokens {
        match &token {
            TokenTree::Group(group) => {
                see(group.span_open().start(), group.span_open().end(), last);
                let mut found = Vec::new();
                read_indents(group.stream(), last, &mut found);
                inner.append(&mut found);
                see(group.span_close().start(), group.span_close().end(), last);
            }
            other => see(other.span().start(), other.span().end(), last),
        }
    }
    indents.append(&mut inner);
}

#[derive(Default)]
struct Reader {
    imports: Vec<Word>,
    functions: Vec<Function>,
    test_lines: Vec<RangeInclusive<usize>>,
    test_modules: Vec<String>,
}

impl Reader {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span().start().line;
        let end = block.brace_token.span.close().end().line;
        let arguments = signature.inputs.iter().filter(|input| matches!(input, syn::FnArg::Typed(_))).count();
        self.functions.push(Function { name: signature.ident.to_string(), line, lines: end - line + 1, arguments });
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String]) {
        let mut segments = before.to_vec();
        match tree {
            syn::UseTree::Path(path) => {
                segments.push(path.ident.to_string());
                self.import(&path.tree, &segments);
                return;
            }
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.import(item, before);
                }
                return;
            }
            syn::UseTree::Name(name) if name.ident == "self" => {}
            syn::UseTree::Name(name) => segments.push(name.ident.to_string()),
            syn::UseTree::Rename(rename) => segments.push(rename.ident.to_string()),
            syn::UseTree::Glob(_) => {}
        }
        self.imports.push(Word { segments, line: tree.span().start().line, used_as: Use::Path });
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attributes = match item {
            syn::Item::Mod(module) => {
                if is_cfg_test(&module.attrs) && module.content.is_none() {
                    self.test_modules.push(module.ident.to_string());
                }
                &module.attrs
            }
            syn::Item::Fn(function) => &function.attrs,
            syn::Item::Impl(block) => &block.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_cfg_test(attributes) {
            self.test_lines.push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if is_cfg_test(&function.attrs) {
            self.test_lines.push(function.span().start().line..=function.span().end().line);
        }
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn is_cfg_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let mut words = Vec::new();
            read_words(list.tokens.clone(), &mut words);
            let has = |name: &str| words.iter().any(|word| word.segments == [name]);
            has("test") && !has("not")
        }
        _ => false,
    })
}
