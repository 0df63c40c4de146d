//! Holds the shape of the code base that ARCHITECTURE.md describes: rooms that know one another in one direction only,
//! small files, unsafe code and CUDA switches where they belong.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, lowest first. A room may use the rooms of earlier rows, none of its own row or of a later one.
const ORDER: &[&[&str]] = &[
    &["error"],
    &["tensor"],
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

/// Rooms that may launch kernels, and the words that tell a launch: of a kernel, or of CPU tasks that write strided,
/// disjoint parts of one output (`cpu::Args::strided`).
const LAUNCHING: &[&str] = &["layers", "optim", "collectives", "data"];
const LAUNCHES: &[&str] = &["launch", "strided"];

const MAX_LINES: usize = 500;

/// A source file: its path from the repository's root with `/` between the parts, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the room it belongs to: the folder or file under `src/`; none for `lib.rs`, `main.rs` and other folders.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (room != "lib" && room != "main").then_some(room)
    }
    /// Returns `path:line: message` for a byte offset of the text.
    fn complaint(&self, at: usize, message: &str) -> String {
        let line = self.text[..at].matches('\n').count() + 1;
        format!("{}:{line}: {message}", self.path)
    }
}

/// Returns the text with comments and the contents of strings and characters turned into blanks, byte for byte, so
/// that offsets stay true.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let skipped = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' {
            // A lifetime has no closing quote after one character.
            let escaped = rest.get(1) == Some(&b'\\');
            let closed = text[at + 1..].chars().nth(1) == Some('\'');
            if escaped || closed { quoted(rest, b'\'') } else { 0 }
        } else if !word_before {
            raw_string(rest)
        } else {
            0
        };
        out[at..at + skipped].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        at += skipped.max(1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns the length of the block comment, which may hold others, at the start.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Returns the length of the string or character at the start, quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Returns the length of the raw string (`r"`, `r#"`, `br#"`, `cr"`) at the start, or 0.
fn raw_string(rest: &[u8]) -> usize {
    let prefix = if matches!(rest[0], b'b' | b'c') { 1 } else { 0 };
    if rest.get(prefix) != Some(&b'r') {
        return 0;
    }
    let hashes = rest[prefix + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let end = rest[open + 1..].windows(close.len()).position(|w| w == close);
    end.map_or(rest.len(), |end| open + 1 + end + close.len())
}

/// Returns the words and the punctuation of blanked text, each with its offset; `::` is one of them.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let word = code[at..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len() - at);
        let len = if word > 0 {
            word
        } else if code[at..].starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            all.push((at, &code[at..at + len]));
        }
        at += len;
    }
    all
}

/// Returns how many of the tokens belong to the bracket that the first one opens, closing one included.
fn bracket(tokens: &[(usize, &str)]) -> usize {
    let mut depth = 0;
    for (i, (_, token)) in tokens.iter().enumerate() {
        depth += match *token {
            "(" | "[" | "{" => 1,
            ")" | "]" | "}" => -1,
            _ => 0,
        };
        if depth <= 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Returns the first parts of the paths at the start: `a` of `a::b`, `a` and `c` of `{a::b, c}`.
fn heads<'a>(tokens: &[(usize, &'a str)]) -> Vec<(usize, &'a str)> {
    match tokens.first() {
        Some((_, "{")) => {
            let (mut heads, mut i) = (Vec::new(), 1);
            let end = bracket(tokens);
            while i < end {
                heads.push(tokens[i]);
                while i < end && tokens[i].1 != "," {
                    i += if tokens[i].1 == "{" { bracket(&tokens[i..]) } else { 1 };
                }
                i += 1;
            }
            heads
        }
        Some(&head) => vec![head],
        None => Vec::new(),
    }
}

/// Returns true when these two tokens come first.
fn words(tokens: &[(usize, &str)], first: &str, second: &str) -> bool {
    tokens.len() >= 2 && tokens[0].1 == first && tokens[1].1 == second
}

/// Complains about every path from one room into a room that is not below it.
fn upward_uses(source: &Source) -> Vec<String> {
    let row = |room: &str| ORDER.iter().position(|row| row.contains(&room));
    let Some(room) = source.room() else { return Vec::new() };
    let Some(own) = row(room) else {
        return vec![
            source.complaint(0, &format!("room `{room}` has no place in ORDER, expected one of tests/structure.rs")),
        ];
    };
    let code = code(&source.text);
    let tokens = tokens(&code);
    // The modules around each token: those of the file's path, and the inline ones by the depth of their braces.
    let file = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let (mut depth, mut inline) = (0, Vec::new());
    let mut complaints = Vec::new();
    for (i, (_, token)) in tokens.iter().enumerate() {
        match *token {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2].1 == "mod" {
                    inline.push(depth);
                }
            }
            "}" => {
                inline.pop_if(|mod_depth| *mod_depth == depth);
                depth -= 1;
            }
            _ => {}
        }
        let mut supers = 0;
        while words(&tokens[i + 2 * supers..], "super", "::") {
            supers += 1;
        }
        let path = match supers {
            0 if words(&tokens[i..], "crate", "::") => &tokens[i + 2..],
            0 => continue,
            _ if supers == file + inline.len() => &tokens[i + 2 * supers..],
            _ => continue,
        };
        for (at, head) in heads(path) {
            // What is no room is a re-export of lib.rs: error's, or a macro.
            let Some(other) = row(head) else { continue };
            if head != room && other >= own {
                complaints.push(source.complaint(at, &format!("`{room}` uses `{head}`, which is not below it")));
            }
        }
    }
    complaints
}

/// Complains about `unsafe` outside `device/`, `cpu/`, `gpu/`, `program/arena.rs` and blocks of a layer, a transform or a
/// collective in which a name tells a launch.
fn unsafe_code(source: &Source) -> Vec<String> {
    // Tests of the device launch kernels, count allocations and look at memory themselves.
    let test = source.path.starts_with("tests/");
    let device = source.room().is_some_and(|room| DEVICES.contains(&room));
    if test || device || source.path == "src/program/arena.rs" {
        return Vec::new();
    }
    let launching = source.room().is_some_and(|room| LAUNCHING.contains(&room));
    let code = code(&source.text);
    let tokens = tokens(&code);
    let found = tokens.iter().enumerate().filter(|(_, token)| token.1 == "unsafe");
    found
        .filter(|&(i, _)| {
            let after = &tokens[i + 1..];
            let block = if after.first().is_some_and(|t| t.1 == "{") { &after[..bracket(after)] } else { &[] };
            !(launching && block.iter().any(|t| LAUNCHES.iter().any(|word| t.1.contains(word))))
        })
        .map(|(_, &(at, _))| {
            source.complaint(at, "`unsafe` belongs in device/, cpu/, gpu/, program/arena.rs or a launch")
        })
        .collect()
}

/// Complains about conditional compilation for CUDA outside `gpu/` and `build.rs`.
fn cuda_switches(source: &Source) -> Vec<String> {
    // Tests say in this way what a build has to have for them.
    if ["src/gpu/", "build", "tests/"].iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let code = code(&source.text);
    let tokens = tokens(&code);
    let mut complaints = Vec::new();
    for (i, &(at, token)) in tokens.iter().enumerate() {
        if !matches!(token, "cfg" | "cfg_attr") {
            continue;
        }
        let skip = if tokens.get(i + 1).is_some_and(|t| t.1 == "!") { 2 } else { 1 };
        let condition = &tokens[(i + skip).min(tokens.len())..];
        let (Some(first), Some(last)) = (condition.first(), condition.get(bracket(condition).saturating_sub(1))) else {
            continue;
        };
        // The strings of the condition are wanted here, so it is read from the text itself.
        let words = source.text[first.0..last.0].to_lowercase();
        if first.1 == "(" && ["cuda", "nvcc", "kernels"].iter().any(|word| words.contains(word)) {
            complaints.push(source.complaint(at, "conditional compilation for CUDA belongs in gpu/ and build.rs"));
        }
    }
    complaints
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
    paths.retain(|path| path.exists() && suffixes.contains(&"rs"));
    for folder in ["src", "build", "tests", "benches", "kernels"] {
        files(&root.join(folder), suffixes, &mut paths);
    }
    let name = |path: &Path| {
        let parts: Vec<_> = path.strip_prefix(root).unwrap().iter().map(|p| p.to_string_lossy()).collect();
        parts.join("/")
    };
    paths.iter().map(|path| Source { path: name(path), text: fs::read_to_string(path).unwrap() }).collect()
}

fn hold(sources: &[Source], rule: impl Fn(&Source) -> Vec<String>) {
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the sources were not found");
    let complaints: Vec<_> = sources.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    hold(&sources(&["rs"]), upward_uses);
}

#[test]
fn unsafe_stands_only_where_memory_and_launches_are() {
    hold(&sources(&["rs"]), unsafe_code);
}

#[test]
fn cuda_is_switched_only_in_gpu_and_build() {
    hold(&sources(&["rs"]), cuda_switches);
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    hold(&sources(&["rs", "cu", "cuh", "h", "hpp", "cpp"]), |source| {
        let lines = source.text.lines().count();
        if lines <= MAX_LINES { vec![] } else { vec![format!("{}: {lines} lines, expected {MAX_LINES}", source.path)] }
    });
}

#[test]
fn src_has_at_most_two_levels_of_folders() {
    hold(&sources(&["rs"]), |source| {
        let parts = source.path.split('/').count();
        let deep = source.path.starts_with("src/") && parts > 4;
        if deep { vec![format!("{}: {} levels of folders, expected 2", source.path, parts - 2)] } else { vec![] }
    });
}

#[test]
fn sources_are_ascii() {
    hold(&sources(&["rs", "cu", "cuh", "h", "hpp", "cpp", "py"]), |source| {
        let other = source.text.find(|c: char| !c.is_ascii());
        other.map(|at| source.complaint(at, "not ASCII; write an escape")).into_iter().collect()
    });
}

#[test]
fn every_room_and_dependency_is_in_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for source in sources(&["rs"]) {
        if let Some(room) = source.room().filter(|&room| room != "error") {
            assert!(page.contains(&format!("| `{room}/` |")), "{}: room `{room}/` is not in its table", source.path);
        }
    }
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for name in manifest.get(kind).and_then(|table| table.as_table()).into_iter().flatten().map(|(name, _)| name) {
            assert!(page.contains(&format!("| {name} |")), "Cargo.toml: {name} has no row in ARCHITECTURE.md");
        }
    }
}

/// The rules applied to sources that break them, and to their nearest neighbours that do not.
mod rules {
    use super::*;

    fn lines(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<usize> {
        let source = Source { path: path.to_string(), text: text.to_string() };
        let line = |complaint: String| complaint.split(':').nth(1).unwrap().parse().unwrap();
        rule(&source).into_iter().map(line).collect()
    }

    #[test]
    fn an_upward_or_sideways_use_is_found_in_every_form() {
        let found = |path, text| lines(upward_uses, path, text);
        assert_eq!(found("src/gpu/mod.rs", "use crate::device::Pool;\nuse crate::cpu::Args;"), [2]);
        assert_eq!(found("src/layers/dense.rs", "use crate::cpu::Args;\nuse crate::program::Step;"), [2]);
        assert_eq!(
            found("src/layers/mod.rs", "use crate::{\n    cpu::Args,\n    tensor::{A, B},\n    train,\n};"),
            [4]
        );
        assert_eq!(found("src/optim/mod.rs", "fn f(x: crate::layers::Param) {}"), [1]);
        assert_eq!(found("src/tensor/mod.rs", "use super::device;\nmod tests { use super::device; }"), [1]);
        assert_eq!(found("src/tensor/mod.rs", "mod a { mod b {} }\nmod c { use super::super::device; }"), [2]);
        assert_eq!(found("src/tensor/real.rs", "use super::device;\nuse super::super::{device, error};"), [2]);
        assert_eq!(found("src/error.rs", "macro_rules! m { () => { $crate::cli::run() } }"), [1]);
        assert_eq!(found("src/config/mod.rs", "use crate::{Error, layers};\nuse super::*;\nuse crate::config::a;"), []);
        assert_eq!(found("src/main.rs", "use peristyle::cli;"), []);
        assert_eq!(found("src/helpers/mod.rs", ""), [1]);
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        let text = r##"
            // use crate::cli;
            /* use crate::cli; /* nested */ use crate::cli; */
            const A: &str = "use crate::cli; \" use crate::cli;";
            const B: &str = r#"use crate::cli; " use crate::cli;"#;
            const C: (char, &'static [u8]) = ('"', b"use crate::cli;");
            const D: char = '\'';
            use crate::cli;
        "##;
        assert_eq!(lines(upward_uses, "src/data/mod.rs", text), [8]);
    }

    #[test]
    fn unsafe_is_allowed_where_it_belongs_alone() {
        let found = |path, text| lines(unsafe_code, path, text);
        let text = "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nfn f() { unsafe { *p } }";
        assert_eq!(found("src/train/mod.rs", text), [3]);
        assert_eq!(found("src/layers/relu.rs", text), [3]);
        assert_eq!(found("src/layers/relu.rs", "unsafe { launch::relu_forward(x, y, n) }"), []);
        assert_eq!(found("src/train/mod.rs", "unsafe { launch::relu_forward(x, y, n) }"), [1]);
        assert_eq!(found("src/layers/relu.rs", "unsafe fn launch() {}"), [1]);
        for path in ["src/device/memory.rs", "src/cpu/args.rs", "src/gpu/cuda.rs"] {
            assert_eq!(found(path, text), []);
        }
        assert_eq!(found("src/program/arena.rs", text), []);
        assert_eq!(found("src/program/run.rs", text), [3]);
    }

    #[test]
    fn a_switch_for_cuda_is_found_in_every_form() {
        let found = |path, text| lines(cuda_switches, path, text);
        assert_eq!(found("src/layers/relu.rs", "#[cfg(test)]\nmod a;\n#[cfg(feature = \"cuda\")]\nmod b;"), [3]);
        assert_eq!(found("src/cli/mod.rs", "if cfg!(has_kernels) {}"), [1]);
        assert_eq!(found("src/lib.rs", "#[cfg_attr(not(nvcc), allow(dead_code))]"), [1]);
        assert_eq!(found("src/cli/mod.rs", "#[cfg(unix)] fn cuda() {}\nlet cfg = cuda(cfg);"), []);
        assert_eq!(found("src/device/mod.rs", "#[cfg(has_kernels)]"), [1]);
        assert_eq!(found("src/gpu/mod.rs", "#[cfg(has_kernels)]"), []);
    }
}
