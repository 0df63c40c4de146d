//! Holds the shape of the code base that ARCHITECTURE.md describes: rooms that depend on each other in one direction
//! only, no circles inside a room, one name for one type, small files, and unsafe code and CUDA switches where they belong.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, lowest first. A room may use the rooms of earlier rows, none of its own row or of a later one.
const ORDER: &[&[&str]] = &[
    &["error"],
    &["cluster", "settings", "storage", "tensor"],
    &["device"],
    &["cpu", "gpu"],
    &["layers", "optim", "collectives", "data"],
    &["config"],
    &["network"],
    &["placement"],
    &["program"],
    &["report"],
    &["train"],
    &["diagnose"],
    &["cli"],
];
/// Rooms that hold memory and threads, where `unsafe` is the rule.
const DEVICES: &[&str] = &["device", "cpu", "gpu"];
/// The folder that calls MPI.
const CALLS: &str = "src/cluster/mpi/";
/// Rooms that may launch kernels, and the words that mark a launch: of a kernel, or of CPU tasks that write strided,
/// disjoint parts of one output (`cpu::Args::strided`).
const LAUNCHING: &[&str] = &["layers", "optim", "collectives", "data"];
const LAUNCHES: &[&str] = &["launch", "strided"];
/// Type names that may be public in several rooms.
const SHARED_NAMES: &[&str] = &["Error", "Arguments", "Output"];
const MAX_LINES: usize = 500;

/// A source file: its path from the root of the repository, with `/` between the parts, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Source { path: path.to_string(), text: text.to_string() }
    }
    fn tokens(&self) -> Vec<TokenTree> {
        self.text.parse::<TokenStream>().unwrap_or_else(|e| panic!("{}: {e}", self.path)).into_iter().collect()
    }
    /// Returns the path of its module: `[layers, conv, fast]`; none outside `src/`.
    fn module(&self) -> Option<Vec<String>> {
        let path = self.path.strip_prefix("src/")?.trim_end_matches(".rs").trim_end_matches("/mod");
        Some(path.split('/').filter(|name| !matches!(*name, "lib" | "main")).map(String::from).collect())
    }
    /// Returns its room; none for `lib.rs`, `main.rs` and files outside `src/`.
    fn room(&self) -> Option<String> {
        self.module()?.first().cloned()
    }
}

fn is(tree: Option<&TokenTree>, word: &str) -> bool {
    tree.is_some_and(|tree| !matches!(tree, TokenTree::Group(_)) && tree.to_string() == word)
}

fn group(tree: Option<&TokenTree>, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    match tree {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream().into_iter().collect()),
        _ => None,
    }
}

fn line(tree: &TokenTree) -> usize {
    tree.span().start().line
}

/// Calls `visit` with every sequence of tokens from each token to the end of its group, and the inline modules around.
fn walk(trees: &[TokenTree], modules: &[String], visit: &mut dyn FnMut(&[TokenTree], &[String])) {
    for (i, tree) in trees.iter().enumerate() {
        visit(&trees[i..], modules);
        if let TokenTree::Group(group) = tree {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            let named = i >= 2 && is(trees.get(i - 2), "mod") && group.delimiter() == Delimiter::Brace;
            let name = named.then(|| trees[i - 1].to_string());
            walk(&inner, &[modules, name.as_slice()].concat(), visit);
        }
    }
}

/// A path in the code, absolute: `crate::a::B` and, in room `a`, `super::B` are both `[a, B]`.
struct Reference {
    segments: Vec<String>,
    line: usize,
    /// Whether it is in a test module.
    test: bool,
    /// Whether a `use` with a visibility re-exports it.
    exported: bool,
    /// Whether the file names its last segment elsewhere too.
    used: bool,
}

/// Returns the paths that start with `a::` at the start of the tokens: `[a, b]` and `[a, c]` for `a::{b, c as d}`.
fn paths(trees: &[TokenTree]) -> Vec<Vec<String>> {
    let Some(TokenTree::Ident(first)) = trees.first() else { return Vec::new() };
    let first = first.to_string();
    if !(is(trees.get(1), ":") && is(trees.get(2), ":")) {
        return vec![vec![first]];
    }
    let rest: Vec<Vec<String>> = match group(trees.get(3), Delimiter::Brace) {
        Some(items) => items.split(|tree| is(Some(tree), ",")).flat_map(paths).collect(),
        None if matches!(trees.get(3), Some(TokenTree::Ident(_))) => paths(&trees[3..]),
        None => vec![vec!["*".to_string()]],
    };
    rest.into_iter().map(|path| [vec![first.clone()], path].concat()).collect()
}

/// Returns the paths into this crate that a file mentions; `children` are the modules that its own module declares.
fn references(source: &Source) -> Vec<Reference> {
    let (Some(module), trees) = (source.module(), source.tokens()) else { return Vec::new() };
    let mut children = BTreeSet::new();
    walk(&trees, &[], &mut |at, _| {
        if is(at.first(), "mod") && is(at.get(2), ";") {
            children.insert(at[1].to_string());
        }
    });
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    walk(&trees, &[], &mut |at, _| *names.entry(at[0].to_string()).or_default() += 1);
    let (mut all, mut before, mut exported) = (Vec::new(), None, false);
    walk(&trees, &[], &mut |at, inline| {
        // `pub use`, `pub(crate) use`: until the semicolon.
        match &at[0] {
            tree if is(Some(tree), "pub") => exported = is(at.get(1), "use") || is(at.get(2), "use"),
            tree if is(Some(tree), ";") => exported = false,
            _ => {}
        }
        let colon = before.replace(at[0].to_string()).is_some_and(|tree| tree == ":") && !is(at.get(1), ">");
        let here = [&module[..], inline].concat();
        for path in paths(at).into_iter().filter(|path| path.len() > 1) {
            let supers = path.iter().take_while(|segment| *segment == "super").count();
            let (base, skip) = match path[0].as_str() {
                "crate" => (&[][..], 1),
                "self" => (&here[..], 1),
                "super" if supers <= here.len() => (&here[..here.len() - supers], supers),
                name if children.contains(name) && inline.is_empty() && !colon => (&here[..], 0),
                _ => continue,
            };
            let segments = [base, &path[skip..]].concat();
            let test = inline.iter().any(|name| name == "tests") || module.last().is_some_and(|name| name == "tests");
            let used = path.last().is_some_and(|name| names[name] > 1);
            all.push(Reference { segments, line: line(&at[0]), test, exported, used });
        }
    });
    all
}

/// Complains about every path from one room into a room that is not below it.
fn upward_uses(source: &Source) -> Vec<String> {
    let row = |room: &str| ORDER.iter().position(|row| row.contains(&room));
    let Some(room) = source.room() else { return Vec::new() };
    let Some(own) = row(&room) else {
        return vec![format!(
            "{}:1: room `{room}` has no place in ORDER, expected one of tests/structure.rs",
            source.path
        )];
    };
    let mut all = references(source);
    // What is no room is a re-export of lib.rs: error's, or a macro.
    all.retain(|r| r.segments[0] != room && row(&r.segments[0]).is_some_and(|other| other >= own));
    let message =
        |r: &Reference| format!("{}:{}: `{room}` uses `{}`, which is not below it", source.path, r.line, r.segments[0]);
    all.iter().map(message).collect()
}

/// Complains about files of one folder that use each other, directly or in a circle. A folder in it counts as one file; an
/// item that its mod.rs re-exports counts as the file that defines it. Tests may use everything.
fn circles(sources: &[Source]) -> Vec<String> {
    let folders: BTreeSet<Vec<String>> = (sources.iter().filter(|s| s.path.ends_with("/mod.rs")))
        .filter_map(Source::module)
        .filter(|module| !module.is_empty())
        .collect();
    folders.iter().flat_map(|folder| circles_in(folder, sources)).collect()
}

fn circles_in(folder: &[String], sources: &[Source]) -> Vec<String> {
    let inside = |s: &&Source| s.module().is_some_and(|module| module.starts_with(folder));
    let node = |segments: &[String]| segments.get(folder.len()).map_or("mod", |name| name).to_string();
    let files: Vec<(String, Vec<Reference>)> =
        sources.iter().filter(inside).map(|s| (node(&s.module().unwrap_or_default()), references(s))).collect();
    let names: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let own = |r: &&Reference| r.segments.starts_with(folder) && r.segments.len() > folder.len();
    let mut exports: BTreeMap<&str, &str> = BTreeMap::new();
    for (_, references) in files.iter().filter(|(name, _)| name == "mod") {
        for r in references.iter().filter(own).filter(|r| names.contains(r.segments[folder.len()].as_str())) {
            exports.insert(r.segments.last().map_or("", |s| s), &r.segments[folder.len()]);
        }
    }
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, references) in &files {
        let contents = |r: &Reference| name == "mod" && r.exported && !r.used;
        for r in references.iter().filter(own).filter(|r| !r.test && !contents(r)) {
            let first = r.segments[folder.len()].as_str();
            let target = names.get(first).or(exports.get(first)).copied().unwrap_or("mod");
            if target != name {
                edges.entry(name).or_default().insert(target);
            }
        }
    }
    // What remains after the files that use nothing are taken away, again and again, is circles and what stands on them.
    while let Some(leaf) = edges.iter().find(|(_, uses)| uses.iter().all(|used| !edges.contains_key(used))) {
        let leaf = *leaf.0;
        edges.remove(leaf);
    }
    let used: BTreeSet<&str> = edges.values().flatten().copied().collect();
    let circle = edges.iter().filter(|(name, _)| used.contains(*name));
    circle.map(|(name, uses)| format!("src/{}: {name} is in a circle: it uses {uses:?}", folder.join("/"))).collect()
}

/// Complains about public types of one name in two rooms. An alias that keeps the name of its type is the same thing.
fn shared_names(sources: &[Source]) -> Vec<String> {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let Some(room) = source.room() else { continue };
        walk(&source.tokens(), &[], &mut |at, _| {
            let kind = at.get(1).map(ToString::to_string).unwrap_or_default();
            // The name of a type that a macro makes is its caller's.
            let is_named = !is(at.get(2), "$");
            if is_named
                && is(at.first(), "pub")
                && matches!(kind.as_str(), "struct" | "enum" | "trait" | "type" | "union")
            {
                let name = at[2].to_string();
                let mut rest = at[3..].iter().take_while(|tree| !is(Some(tree), ";"));
                if kind != "type" || !rest.any(|tree| is(Some(tree), &name)) {
                    rooms.entry(name).or_default().insert(room.clone());
                }
            }
        });
    }
    rooms.retain(|name, rooms| rooms.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    rooms.iter().map(|(name, rooms)| format!("public type `{name}` is in several rooms: {rooms:?}")).collect()
}

/// Complains about `unsafe` outside `device/`, `cpu/`, `gpu/`, `program/arena.rs` and blocks of a layer, a transform, a
/// collective or a data source in which a name marks a launch.
fn unsafe_code(source: &Source) -> Vec<String> {
    // Tests of the device launch kernels, count allocations and inspect memory themselves.
    let room = source.room().unwrap_or_default();
    let test = source.path.starts_with("tests/");
    if test
        || DEVICES.contains(&room.as_str())
        || source.path.starts_with(CALLS)
        || source.path == "src/program/arena.rs"
    {
        return Vec::new();
    }
    let launching = LAUNCHING.contains(&room.as_str());
    let mut all = Vec::new();
    walk(&source.tokens(), &[], &mut |at, _| {
        if !is(at.first(), "unsafe") {
            return;
        }
        let mut launches = false;
        walk(&group(at.get(1), Delimiter::Brace).unwrap_or_default(), &[], &mut |inner, _| {
            let name = matches!(inner[0], TokenTree::Ident(_)).then(|| inner[0].to_string());
            launches |= name.is_some_and(|name| LAUNCHES.iter().any(|word| name.contains(word)));
        });
        if !(launching && launches) {
            let message = "`unsafe` belongs in device/, cpu/, gpu/, program/arena.rs or a launch";
            all.push(format!("{}:{}: {message}", source.path, line(&at[0])));
        }
    });
    all
}

/// Complains about conditional compilation for CUDA outside `gpu/` and `build.rs`.
fn cuda_switches(source: &Source) -> Vec<String> {
    // Tests declare in this way what a build must have for them.
    if ["src/gpu/", "build", "tests/"].iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    walk(&source.tokens(), &[], &mut |at, _| {
        if is(at.first(), "cfg") || is(at.first(), "cfg_attr") {
            let condition = if is(at.get(1), "!") { at.get(2) } else { at.get(1) };
            let words = group(condition, Delimiter::Parenthesis).map_or(String::new(), |trees| format!("{trees:?}"));
            if ["cuda", "nvcc", "kernels"].iter().any(|word| words.to_lowercase().contains(word)) {
                let message = "conditional compilation for CUDA belongs in gpu/ and build.rs";
                all.push(format!("{}:{}: {message}", source.path, line(&at[0])));
            }
        }
    });
    all
}

/// Collects the files below a folder whose suffix is in the list.
fn files(folder: &Path, suffixes: &[&str], into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&path, suffixes, into);
        } else if path.extension().is_some_and(|suffix| suffixes.iter().any(|s| suffix == *s)) {
            into.push(path);
        }
    }
}

/// Returns the project's own sources with one of the suffixes.
fn sources(suffixes: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("build.rs")];
    paths.retain(|_| suffixes.contains(&"rs"));
    for folder in ["src", "build", "tests", "benches", "kernels"] {
        files(&root.join(folder), suffixes, &mut paths);
    }
    let name = |path: &Path| {
        let parts: Vec<_> = path.strip_prefix(root).unwrap().iter().map(|p| p.to_string_lossy()).collect();
        parts.join("/")
    };
    let all: Vec<Source> =
        paths.iter().map(|path| Source::new(&name(path), &fs::read_to_string(path).unwrap())).collect();
    assert!(!suffixes.contains(&"rs") || all.iter().any(|s| s.path == "src/lib.rs"), "the sources were not found");
    all
}

fn hold(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    hold(sources(&["rs"]).iter().flat_map(upward_uses).collect());
}

#[test]
fn files_of_a_room_do_not_use_each_other_in_circles() {
    hold(circles(&sources(&["rs"])));
}

#[test]
fn no_public_type_name_is_in_two_rooms() {
    hold(shared_names(&sources(&["rs"])));
}

#[test]
fn unsafe_stands_only_where_memory_and_launches_are() {
    hold(sources(&["rs"]).iter().flat_map(unsafe_code).collect());
}

#[test]
fn cuda_is_switched_only_in_gpu_and_build() {
    hold(sources(&["rs"]).iter().flat_map(cuda_switches).collect());
}

#[test]
fn files_are_short_ascii_and_at_most_two_folders_deep() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources(&["rs", "cu", "cuh", "h", "hpp", "cpp"]) {
        let (lines, parts) = (text.lines().count(), path.split('/').count());
        if lines > MAX_LINES {
            complaints.push(format!("{path}: {lines} lines, expected at most {MAX_LINES}"));
        }
        if path.starts_with("src/") && parts > 4 {
            complaints.push(format!("{path}: {} levels of folders, expected at most 2", parts - 2));
        }
        if let Some(number) = text.lines().position(|line| !line.is_ascii()) {
            complaints.push(format!("{path}:{}: not ASCII; write an escape", number + 1));
        }
    }
    hold(complaints);
}

#[test]
fn every_room_and_dependency_is_in_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for room in ORDER.iter().copied().flatten().filter(|room| **room != "error") {
        assert!(page.contains(&format!("| `{room}/` |")), "room `{room}/` is not in the table of ARCHITECTURE.md");
    }
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for name in manifest.get(kind).and_then(|table| table.as_table()).into_iter().flatten().map(|(name, _)| name) {
            assert!(page.contains(&format!("| {name} |")), "Cargo.toml: {name} has no row in ARCHITECTURE.md");
        }
    }
}

/// The rules, applied to sources that break them and to their nearest neighbours that do not.
mod rules {
    use super::*;

    fn lines(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<usize> {
        let line = |complaint: String| complaint.split(':').nth(1).unwrap().parse().unwrap();
        rule(&Source::new(path, text)).into_iter().map(line).collect()
    }

    #[test]
    fn an_upward_or_sideways_use_is_found_in_every_form() {
        let found = |path, text| lines(upward_uses, path, text);
        assert_eq!(found("src/gpu/mod.rs", "use crate::device::Pool;\nuse crate::cpu::Args;"), [2]);
        assert_eq!(
            found("src/layers/mod.rs", "use crate::{\n    cpu::Args,\n    tensor::{A, B},\n    train,\n};"),
            [1]
        );
        assert_eq!(found("src/optim/mod.rs", "fn f(x: crate::layers::Param) {}"), [1]);
        assert_eq!(found("src/tensor/mod.rs", "use super::device;\nmod tests { use super::device; }"), [1]);
        assert_eq!(found("src/tensor/mod.rs", "mod a { mod b {} }\nmod c { use super::super::device; }"), [2]);
        assert_eq!(found("src/tensor/real.rs", "use super::device;\nuse super::super::{device, error};"), [2]);
        assert_eq!(found("src/error.rs", "macro_rules! m { () => { $crate::cli::run() } }"), [1]);
        assert_eq!(found("src/config/mod.rs", "use crate::{Error, layers};\nuse super::*;\nuse crate::config::a;"), []);
        assert_eq!(found("src/main.rs", "use peristyle::cli;"), []);
        assert_eq!(found("src/helpers/mod.rs", ""), [1]);
        let text = "// use crate::cli;\nconst A: &str = \"use crate::cli;\";\nuse crate::cli;";
        assert_eq!(found("src/data/mod.rs", text), [3]);
    }

    #[test]
    fn a_circle_is_found_and_tests_and_contents_make_none() {
        let found = |files: &[(&str, &str)]| {
            let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
            circles(&sources).len()
        };
        let (mod_rs, contents) = ("src/cpu/mod.rs", "mod a;\nmod b;\npub use a::{A, Other};\npub(crate) use b::B;");
        let (a, b) = ("src/cpu/a.rs", "src/cpu/b.rs");
        assert_eq!(found(&[(mod_rs, contents), (a, "use super::B;"), (b, "struct B;")]), 0);
        assert_eq!(found(&[(mod_rs, contents), (a, "use super::B;"), (b, "fn f(x: super::a::A) {}")]), 2);
        assert_eq!(found(&[(mod_rs, contents), (a, "use super::B;"), (b, "use crate::cpu::{Other, C};")]), 2);
        assert_eq!(found(&[(mod_rs, contents), (a, "use super::B;"), (b, "mod tests { use super::super::A; }")]), 0);
        // A type in mod.rs that a file uses, while mod.rs uses the file.
        let list = "mod a;\nuse a::A;\npub struct List(A);";
        assert_eq!(found(&[(mod_rs, list), (a, "use super::List;")]), 2);
        assert_eq!(found(&[(mod_rs, list), (a, "use crate::tensor::List;")]), 0);
        // The same, with a type that mod.rs also exports.
        let list = "mod a;\npub use a::A;\npub struct List(A);";
        assert_eq!(found(&[(mod_rs, list), (a, "use super::List;")]), 2);
        // A folder is one file of the room, and a room of its own.
        let folder = [("src/cpu/c/mod.rs", "mod d;"), ("src/cpu/c/d.rs", "use super::super::B;")];
        assert_eq!(found(&[&[(mod_rs, contents), (b, "use super::c::C;")], &folder[..]].concat()), 2);
        assert_eq!(found(&[&[(mod_rs, contents), (b, "")], &folder[..]].concat()), 0);
    }

    #[test]
    fn a_name_of_two_rooms_is_found_and_an_alias_is_none() {
        let found =
            |a: &str, b: &str| shared_names(&[Source::new("src/cpu/a.rs", a), Source::new("src/gpu/b.rs", b)]).len();
        assert_eq!(found("pub struct Step;", "mod x { pub enum Step {} }"), 1);
        assert_eq!(found("pub struct Step;", "pub(crate) enum Step {}\nenum Step {}\n// pub enum Step {}"), 0);
        assert_eq!(found("pub struct Step<T>(T);", "pub type Step = crate::cpu::Step<f32>;"), 0);
        assert_eq!(found("pub struct Step;", "pub type Step = usize;"), 1);
        assert_eq!(found("pub struct Arguments;", "pub struct Arguments;"), 0);
    }

    #[test]
    fn unsafe_is_allowed_where_it_belongs_alone() {
        let found = |path, text| lines(unsafe_code, path, text);
        let text = "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nfn f() { unsafe { *p } }";
        assert_eq!(found("src/train/mod.rs", text), [3]);
        assert_eq!(found("src/layers/relu.rs", text), [3]);
        assert_eq!(found("src/layers/relu.rs", "unsafe { launch::relu_forward(x, y, n) }"), []);
        assert_eq!(found("src/layers/relu.rs", "unsafe { f(\"launch\") }"), [1]);
        assert_eq!(found("src/train/mod.rs", "unsafe { launch::relu_forward(x, y, n) }"), [1]);
        assert_eq!(found("src/layers/relu.rs", "unsafe fn launch() {}"), [1]);
        for path in ["src/device/memory.rs", "src/cpu/args.rs", "src/gpu/cuda.rs", "src/program/arena.rs"] {
            assert_eq!(found(path, text), []);
        }
        assert_eq!(found("src/program/run.rs", text), [3]);
    }

    #[test]
    fn a_switch_for_cuda_is_found_in_every_form() {
        let found = |path, text| lines(cuda_switches, path, text);
        assert_eq!(found("src/layers/relu.rs", "#[cfg(test)]\nmod a;\n#[cfg(feature = \"cuda\")]\nmod b;"), [3]);
        assert_eq!(found("src/cli/mod.rs", "if cfg!(has_kernels) {}"), [1]);
        assert_eq!(found("src/lib.rs", "#[cfg_attr(not(nvcc), allow(dead_code))]"), [1]);
        assert_eq!(found("src/cli/mod.rs", "#[cfg(unix)] fn cuda() {}\nlet cfg = other(cfg);"), []);
        assert_eq!(found("src/device/mod.rs", "#[cfg(has_kernels)]"), [1]);
        assert_eq!(found("src/gpu/mod.rs", "#[cfg(has_kernels)]"), []);
    }
}
