//! Which file of the crate uses which: an arrow for every path in a file that leads to an
//! item of another.
//!
//! Paths are followed to the file that defines the item: through modules, imports and
//! re-exports, `a::*` too. So a module that only passes on what a file below it defines
//! (`pub use part::Part;`) stands between nobody, and neither that line nor `mod part;` is an
//! arrow. Methods are not followed, nor is what a macro makes; tests do not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::reader::{code_only, tokens, without_tests};

/// Re-exports of re-exports that a path may go through.
const MOST_STEPS: usize = 16;

/// Segments of a path.
type Path = Vec<String>;

/// What one file says, with paths from the root of the crate.
#[derive(Default)]
struct Source {
    imports: Vec<Import>,
    /// Paths in code that begin with `crate`, `self` or `super`.
    absolute: Vec<Path>,
    /// Paths in code that begin with a name: of an import, of a module below, or of neither.
    named: Vec<Path>,
    /// What the file defines.
    items: BTreeSet<String>,
    /// Every word outside of imports.
    words: BTreeSet<String>,
}

struct Import {
    target: Target,
    /// What it is called here; `None` for all names of the target.
    name: Option<String>,
    /// Whether it passes the name on.
    public: bool,
}

/// Where a path begins decides how it is read.
enum Target {
    Absolute(Path),
    Named(Path),
}

/// Where a path leads.
enum Place<'a> {
    Module,
    ItemOf(&'a [String]),
}

/// The files of a crate by module.
struct Crate {
    files: BTreeMap<Path, (String, Source)>,
}

/// The files that each file uses. Files are named by their path below `src`.
pub(crate) fn arrows<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, BTreeSet<String>> {
    let files = files.filter(|(file, _)| !file.ends_with("tests.rs"));
    let files = files.map(|(file, text)| {
        let module = module_of(file);
        let source = read(&module, &tokens(&code_only(without_tests(text))));
        (module, (file.to_owned(), source))
    });
    let all = Crate { files: files.collect() };
    all.files.iter().map(|(module, (file, _))| (file.clone(), all.used_by(module))).collect()
}

fn module_of(file: &str) -> Path {
    let mut module: Path = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if ["mod", "lib"].contains(&module[module.len() - 1].as_str()) {
        module.pop();
    }
    module
}

impl Crate {
    fn used_by(&self, module: &[String]) -> BTreeSet<String> {
        let source = &self.files[module].1;
        let needed = |import: &&Import| {
            let used = |name: &String| !import.public || source.words.contains(name);
            import.name.as_ref().is_some_and(used)
        };
        let imports = source.imports.iter().filter(needed);
        let imported = imports.filter_map(|import| self.follow(module, &import.target, 0));
        let absolute = source.absolute.iter().filter_map(|path| self.find(&[], path, 0));
        let named = source.named.iter().filter_map(|path| self.find_named(module, path, 0));
        let mut files = BTreeSet::new();
        for place in imported.chain(absolute).chain(named) {
            if let Place::ItemOf(other) = place
                && other != module
            {
                files.insert(self.files[other].0.clone());
            }
        }
        files
    }

    fn follow(&self, module: &[String], target: &Target, steps: usize) -> Option<Place<'_>> {
        match target {
            _ if steps > MOST_STEPS => None,
            Target::Absolute(path) => self.find(&[], path, steps),
            Target::Named(path) => self.find_named(module, path, steps),
        }
    }

    /// Where `path`, seen from inside `module`, leads; `None` out of the crate.
    fn find(&self, module: &[String], path: &[String], steps: usize) -> Option<Place<'_>> {
        let (here, (_, source)) = self.files.get_key_value(module)?;
        let Some((name, rest)) = path.split_first() else { return Some(Place::Module) };
        if source.items.contains(name) {
            return Some(Place::ItemOf(here));
        }
        let below = [module, std::slice::from_ref(name)].concat();
        if self.files.contains_key(&below) {
            return self.find(&below, rest, steps);
        }
        if let Some(import) = source.import(name) {
            return self.follow(module, &import.target.joined(rest), steps + 1);
        }
        // A name that no module of `a::*` defines is one that a macro defines here.
        let globs = source.imports.iter().filter(|import| import.name.is_none());
        let mut places = globs.filter_map(|glob| {
            match self.follow(module, &glob.target.joined(path), steps + 1)? {
                Place::ItemOf(other) if !self.files[other].1.items.contains(name) => None,
                place => Some(place),
            }
        });
        Some(places.next().unwrap_or(Place::ItemOf(here)))
    }

    /// The same for a path that begins with a name, which may be of another crate.
    fn find_named(&self, module: &[String], path: &[String], steps: usize) -> Option<Place<'_>> {
        let below = [module, &path[..1]].concat();
        if self.files.contains_key(&below) {
            return self.find(&below, &path[1..], steps);
        }
        let import = self.files[module].1.import(&path[0])?;
        self.follow(module, &import.target.joined(&path[1..]), steps + 1)
    }
}

impl Source {
    fn import(&self, name: &str) -> Option<&Import> {
        // `use tree::tree;` says where its own name is from and would be followed for ever.
        let names = |import: &&Import| {
            let itself = matches!(&import.target, Target::Named(path) if path[0] == name);
            import.name.as_deref() == Some(name) && !itself
        };
        self.imports.iter().find(names)
    }
}

impl Target {
    fn joined(&self, rest: &[String]) -> Target {
        match self {
            Target::Absolute(path) => Target::Absolute([path, rest].concat()),
            Target::Named(path) => Target::Named([path, rest].concat()),
        }
    }
}

/// Reads one file.
fn read(module: &[String], tokens: &[String]) -> Source {
    let mut source = Source::default();
    // The depths at which modules inside the file were opened.
    let (mut depth, mut inner) = (0, Vec::new());
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut at = 0;
    while at < tokens.len() {
        let before = if at == 0 { "" } else { word(at - 1) };
        match word(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inner.pop_if(|opened| *opened == depth);
            }
            "mod" if word(at + 2) == "{" => inner.push(depth),
            "use" => {
                let end = tokens[at..].iter().position(|token| token == ";");
                let end = end.map_or(tokens.len(), |length| at + length);
                let public = before == "pub" || before == ")";
                for (path, name) in unfolded(&tokens[at + 1..end]) {
                    match target(module, inner.len(), path) {
                        // The name is that module's, not the file's.
                        Some(Target::Absolute(path)) if !inner.is_empty() => {
                            source.absolute.push(path);
                        }
                        Some(target) => source.imports.push(Import { target, name, public }),
                        None => {}
                    }
                }
                at = end;
            }
            "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                if inner.is_empty() =>
            {
                source.items.insert(word(at + 1).to_owned());
            }
            name if before != "::" && before != "." && word(at + 1) == "::" && is_name(name) => {
                let path = path_from(&tokens[at..]);
                source.words.insert(name.to_owned());
                at += 2 * (path.len() - 1);
                match target(module, inner.len(), path) {
                    Some(Target::Absolute(path)) => source.absolute.push(path),
                    Some(Target::Named(path)) => source.named.push(path),
                    None => {}
                }
            }
            name => _ = source.words.insert(name.to_owned()),
        }
        at += 1;
    }
    source
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The path at the beginning of `tokens`.
fn path_from(tokens: &[String]) -> Path {
    let mut path = vec![tokens[0].clone()];
    for pair in tokens[1..].chunks(2) {
        match pair {
            [colons, name] if colons == "::" && is_name(name) => path.push(name.clone()),
            _ => break,
        }
    }
    path
}

/// The paths of an import with the names that they get.
fn unfolded(tokens: &[String]) -> Vec<(Path, Option<String>)> {
    let mut path: Path = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "::" => {}
            "*" => return vec![(path, None)],
            "as" => return vec![(path, Some(tokens[at + 1].clone()))],
            "{" => {
                let branches = branches(&tokens[at + 1..tokens.len() - 1]);
                let unfolded = branches.into_iter().flat_map(unfolded);
                let below = |(rest, name): (Path, _)| match rest.split_first() {
                    Some((first, [])) if first == "self" => {
                        let own = if name == Some("self".to_owned()) { path.last() } else { None };
                        (path.clone(), own.cloned().or(name))
                    }
                    _ => ([path.clone(), rest].concat(), name),
                };
                return unfolded.map(below).collect();
            }
            _ => path.push(token.clone()),
        }
    }
    let name = path.last().cloned();
    if path.is_empty() { Vec::new() } else { vec![(path, name)] }
}

/// `tokens` divided at the commas that are in no group.
fn branches(tokens: &[String]) -> Vec<&[String]> {
    let mut depth = 0;
    let outside = |token: &String| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        token == "," && depth == 0
    };
    tokens.split(outside).collect()
}

/// What a path in `module` begins at, inside of so many modules of that file; `None` if it
/// is there, in the same file.
fn target(module: &[String], inner: usize, path: Path) -> Option<Target> {
    let above = path.iter().take_while(|segment| *segment == "super").count();
    match path[0].as_str() {
        "crate" => Some(Target::Absolute(path[1..].to_vec())),
        "super" if above < inner => None,
        "super" => {
            let start = &module[..(module.len() + inner).checked_sub(above)?];
            Some(Target::Absolute([start, &path[above..]].concat()))
        }
        "self" if inner > 0 => None,
        "self" if path.get(1).is_some_and(|next| next == "super") => {
            target(module, inner, path[1..].to_vec())
        }
        "self" => Some(Target::Absolute([module, &path[1..]].concat())),
        _ if inner > 0 => None,
        _ => Some(Target::Named(path)),
    }
}

/// The arrows of samples, as `user: used used` in lines.
fn drawn(files: &[(&str, &str)]) -> String {
    let arrows = arrows(files.iter().copied().chain([("lib.rs", "")]));
    let lines = arrows.into_iter().filter(|(_, used)| !used.is_empty()).map(|(file, used)| {
        let used: Vec<_> = used.iter().map(|file| file.trim_end_matches(".rs")).collect();
        format!("{}: {}", file.trim_end_matches(".rs"), used.join(" "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn paths_in_imports_and_in_code_are_arrows() {
    let files = [
        ("a/mod.rs", "mod x; mod y; use crate::{b::{f, g as h}, c::{self, T}}; fn i() {}"),
        ("a/x.rs", "use super::y::Y; fn f(y: &Y) -> u8 { super::super::c::f(y.z::<u8>()) }"),
        ("a/y.rs", "use crate::c as d; pub struct Y; fn g() { d::f(self::h()) } fn h() {}"),
        ("b.rs", "use std::{fs, io::{self, c::X}}; pub fn f() { io::c() } pub fn g() {}"),
        ("c.rs", "pub fn f() { crate::a::i() } pub struct T; // crate::b::f()"),
    ];
    assert_eq!(drawn(&files), "a/mod: b c\na/x: a/y c\na/y: c\nc: a/mod");
}

#[test]
fn what_is_passed_on_leads_to_where_it_is_defined() {
    let files = [
        ("a/mod.rs", "mod x; mod y; mod z; pub use x::X; pub(crate) use y::*; pub use z::Z;"),
        ("a/x.rs", "use super::Y; pub struct X;"),
        ("a/y.rs", "use super::made_by_a_macro; pub enum Y {}"),
        ("a/z.rs", "pub use super::x::X as Z;"),
        ("b.rs", "use crate::a; use a::Z; fn f() -> a::Y { a::x::X::new() }"),
    ];
    assert_eq!(drawn(&files), "a/x: a/y\na/y: a/mod\nb: a/x a/y");
}

#[test]
fn what_is_passed_on_and_used_is_an_arrow() {
    let files = [("a/mod.rs", "mod x; pub use x::X; pub struct S(X);"), ("a/x.rs", "struct X;")];
    assert_eq!(drawn(&files), "a/mod: a/x");
}

#[test]
fn tests_do_not_count_and_modules_in_a_file_are_that_file() {
    let files = [
        ("a.rs", "mod inner { use super::super::b::B; use super::C; fn f() { self::g() } }"),
        ("b.rs", "pub struct B;\n#[cfg(test)]\nmod tests {\n use crate::a::inner; }"),
        ("b/tests.rs", "use crate::a::X;"),
    ];
    assert_eq!(drawn(&files), "a: b");
}
