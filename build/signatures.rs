//! Reads the kernels' signatures out of kernels/*.cu and writes a typed Rust launcher for each.
//!
//! A kernel is `extern "C" __global__ void __launch_bounds__(THREADS) name(parameters)`, written out: a name that
//! a macro makes would escape this reader, so `__global__` inside a macro is refused. The bounds may also name the
//! blocks on a multiprocessor: `(THREADS, BLOCKS)`. Every pointer carries its shape in a comment on its own line.

use std::fmt::Write;

/// One parameter of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type in CUDA, without `__restrict__`: `const float*`.
    pub cuda: String,
    /// Its type in the launcher.
    pub rust: String,
    /// Its shape comment, for pointers.
    pub shape: String,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// Its name, the same in the image and in Rust.
    pub name: String,
    /// The line of its signature.
    pub line: usize,
    /// Threads of a block.
    pub threads: u32,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

/// CUDA's scalar types and their Rust counterparts.
const SCALARS: &[(&str, &str)] = &[
    ("float", "f32"),
    ("double", "f64"),
    ("__nv_bfloat16", "bf16"),
    ("int", "i32"),
    ("unsigned", "u32"),
    ("unsigned int", "u32"),
    ("long long", "i64"),
    ("unsigned long long", "u64"),
    ("unsigned char", "u8"),
];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
    Comment(String),
}

struct Placed {
    token: Token,
    line: usize,
    directive: bool,
}

/// Splits a source into words, marks, texts and comments, each with its line.
fn tokens(source: &str) -> Vec<Placed> {
    let chars: Vec<char> = source.chars().collect();
    let (mut out, mut i, mut line, mut directive) = (Vec::new(), 0, 1, false);
    let mut fresh = true;
    while i < chars.len() {
        let (c, start) = (chars[i], line);
        let rest =
            |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|&j| stop(j)).unwrap_or(chars.len());
        let next = chars.get(i + 1).copied().unwrap_or(' ');
        let (end, token) = if c == '\n' {
            directive &= i > 0 && chars[i - 1] == '\\';
            (line, fresh) = (line + 1, true);
            (i + 1, None)
        } else if c == '/' && next == '/' {
            let end = rest(i, &|j| chars[j] == '\n');
            (end, Some(Token::Comment(chars[i + 2..end].iter().collect::<String>().trim().to_string())))
        } else if c == '/' && next == '*' {
            let end = (rest(i + 2, &|j| chars[j] == '*' && chars.get(j + 1) == Some(&'/')) + 2).min(chars.len());
            line += chars[i..end].iter().filter(|&&c| c == '\n').count();
            (end, None)
        } else if c == '"' {
            let end = (rest(i + 1, &|j| chars[j] == '"' && chars[j - 1] != '\\') + 1).min(chars.len());
            (end, Some(Token::Text(chars[i..end].iter().collect())))
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest(i, &|j| !(chars[j].is_alphanumeric() || chars[j] == '_'));
            (end, Some(Token::Word(chars[i..end].iter().collect())))
        } else if c.is_whitespace() {
            (i + 1, None)
        } else {
            directive |= c == '#' && fresh;
            (i + 1, Some(Token::Mark(c)))
        };
        fresh &= token.is_none() || c == '\n';
        out.extend(token.map(|token| Placed { token, line: start, directive }));
        i = end;
    }
    out
}

/// Reads every kernel of a source; `file` is its name in messages.
///
/// # Errors
/// `file:line: what cannot be read and how to write it`.
pub fn read(file: &str, source: &str) -> Result<Vec<Kernel>, String> {
    let all = tokens(source);
    let code: Vec<&Placed> = all.iter().filter(|p| !matches!(p.token, Token::Comment(_))).collect();
    let mut kernels = Vec::new();
    for (i, placed) in code.iter().enumerate() {
        if placed.token != Token::Word("__global__".into()) {
            continue;
        }
        let fail = |line: usize, message: &str| format!("{file}:{line}: {message}");
        if placed.directive {
            return Err(fail(
                placed.line,
                "a macro makes a kernel; write each kernel's signature out, around a template",
            ));
        }
        let external = i >= 2
            && code[i - 2].token == Token::Word("extern".into())
            && code[i - 1].token == Token::Text("\"C\"".into());
        if !external {
            return Err(fail(placed.line, "`__global__` without `extern \"C\"` before it; kernels have C names"));
        }
        let word = |j: usize| match code.get(j).map(|p| &p.token) {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        let mark = |j: usize| match code.get(j).map(|p| &p.token) {
            Some(Token::Mark(mark)) => *mark,
            _ => ' ',
        };
        let threads = word(i + 4).parse::<u32>().ok().filter(|n| (1..=1024).contains(n));
        let bounded = word(i + 1) == "void" && word(i + 2) == "__launch_bounds__" && mark(i + 3) == '(';
        let counted = mark(i + 5) == ',' && word(i + 6).parse::<u32>().is_ok_and(|blocks| blocks > 0);
        let i = if counted { i + 2 } else { i };
        let (true, Some(threads), ')', '(') = (bounded, threads, mark(i + 5), mark(i + 7)) else {
            let form = "expected `extern \"C\" __global__ void __launch_bounds__(THREADS) name(...)`, THREADS a number";
            return Err(fail(placed.line, form));
        };
        let (name, line) = (word(i + 6).to_string(), code[i + 6].line);
        let (mut parameters, mut start) = (Vec::new(), i + 8);
        for end in i + 8..code.len() {
            let mark = mark(end);
            if mark == ',' || (mark == ')' && end > start) {
                let comment = |line: usize| {
                    all.iter().find_map(|p| match &p.token {
                        Token::Comment(text) if p.line == line => Some(text.clone()),
                        _ => None,
                    })
                };
                let line = code[end - 1].line;
                let given = parameter(&code[start..end], comment(line)).map_err(|m| fail(line, &m))?;
                parameters.push(given);
                start = end + 1;
            }
            if mark == ')' {
                break;
            }
            if mark == '(' || mark == '{' || mark == ';' {
                return Err(fail(code[end].line, &format!("cannot read the parameters of \"{name}\"")));
            }
        }
        kernels.push(Kernel { name, line, threads, parameters });
    }
    Ok(kernels)
}

fn parameter(tokens: &[&Placed], comment: Option<String>) -> Result<Parameter, String> {
    let mut words: Vec<&str> = Vec::new();
    let mut pointer = false;
    for placed in tokens {
        match &placed.token {
            Token::Word(word) if word == "__restrict__" => {}
            Token::Word(word) => words.push(word),
            Token::Mark('*') if !pointer => pointer = true,
            other => return Err(format!("{other:?} in a kernel's parameter; expected `type name` or `type* name`")),
        }
    }
    let name = words.pop().unwrap_or_default().to_string();
    let constant = words.first() == Some(&"const");
    let scalar = words[usize::from(constant)..].join(" ");
    let Some((_, rust)) = SCALARS.iter().find(|(cuda, _)| *cuda == scalar) else {
        let known: Vec<&str> = SCALARS.iter().map(|(cuda, _)| *cuda).collect();
        return Err(format!("parameter \"{name}\" has the type `{scalar}`; known are {}", known.join(", ")));
    };
    let shape = comment.unwrap_or_default();
    if pointer && !shape.starts_with('(') {
        return Err(format!("pointer \"{name}\" lacks its shape; write `// (N, H, W, C)` at the end of its line"));
    }
    let qualifier = if constant { "const " } else { "" };
    let (cuda, rust) = match (pointer, constant) {
        (true, true) => (format!("{qualifier}{scalar}*"), format!("Const<{rust}>")),
        (true, false) => (format!("{scalar}*"), format!("Mut<{rust}>")),
        (false, _) => (scalar, (*rust).to_string()),
    };
    Ok(Parameter { name, cuda, rust, shape: if pointer { shape } else { String::new() } })
}

/// Writes the table of entries and one launcher per kernel, for `include!` inside `device/kernels.rs`.
pub fn launchers(files: &[(String, Vec<Kernel>)]) -> String {
    let mut out = String::from("/// Every kernel, in the order of [`Driver::launch`](super::Driver::launch).\n");
    out += "pub static ENTRIES: &[Entry] = &[\n";
    for (file, kernel) in files.iter().flat_map(|(file, kernels)| kernels.iter().map(move |k| (file, k))) {
        let parameters: Vec<String> = kernel.parameters.iter().map(|p| format!("{:?}", p.cuda)).collect();
        let _ = writeln!(
            out,
            "    Entry {{ name: {:?}, file: {file:?}, threads: {}, parameters: &[{}] }},",
            kernel.name,
            kernel.threads,
            parameters.join(", ")
        );
    }
    out += "];\n";
    let all = files.iter().flat_map(|(file, kernels)| kernels.iter().map(move |k| (file, k)));
    for (index, (file, kernel)) in all.enumerate() {
        let _ = writeln!(out, "\n/// kernels/{file}.cu:{}, {} threads a block.\n///", kernel.line, kernel.threads);
        for p in &kernel.parameters {
            let _ = writeln!(out, "/// - `{}`: `{}` {}", p.name, p.cuda, p.shape.replace('[', "\\["));
        }
        out += "///\n/// # Errors\n/// When the device refuses the launch.\n///\n/// # Safety\n";
        out += "/// Each address is memory of the device, of the shape given, and stays so until the kernel has run.\n";
        out += "#[allow(clippy::too_many_arguments, reason = \"the kernel's own parameters\")]\n";
        let _ = write!(out, "pub unsafe fn {}(on: &Issue<'_>, grid: Grid", kernel.name);
        for p in &kernel.parameters {
            let _ = write!(out, ", {}: {}", p.name, p.rust);
        }
        out += ") -> Result<()> {\n    let args = [";
        for p in &kernel.parameters {
            let _ = write!(out, "address(&{}), ", p.name);
        }
        let _ =
            writeln!(out, "];\n    // SAFETY: the types are the kernel's own; the caller vouches for the addresses.");
        let _ = writeln!(out, "    unsafe {{ on.driver.launch({index}, grid, &args, on.stream) }}\n}}");
    }
    out
}

const TWINS: &str = r#"
    /// Launches [`NAME`](super::NAME) or its twin.
    ///
    /// # Errors
    /// When the device refuses the launch.
    ///
    /// # Panics
    /// When operands have different formats.
    ///
    /// # Safety
    /// As for [`NAME`](super::NAME).
    #[allow(clippy::too_many_arguments, reason = "the kernel's own parameters")]
    pub unsafe fn NAME(on: &Issue<'_>, grid: GridPARAMETERS) -> Result<()> {
        // SAFETY: passed on.
        unsafe {
            match Format::common(&[FORMATS]) {
                Format::Bf16 => super::NAME_bf16(on, gridGIVEN),
TF32                _ => super::NAME(on, gridGIVEN),
            }
        }
    }
"#;

/// Writes the module `any`: for every kernel with a twin in another format, a launcher that takes the operands that
/// differ in whichever format they are, and launches the twin of that format.
///
/// # Errors
/// A twin whose parameters differ in more than the format of the numbers that they point to.
pub fn twins(files: &[(String, Vec<Kernel>)]) -> Result<String, String> {
    let mut out =
        String::from("\n/// Launchers of kernels with twins: the operands say which one runs.\npub mod any {\n");
    out += "    use super::{AnyConst, AnyMut, Const, Format, Grid, Issue, Mut, Result};\n";
    for (file, kernels) in files {
        let twin = |name: &str, suffix: &str| kernels.iter().find(|k| k.name == format!("{name}{suffix}"));
        for kernel in kernels {
            let Some(bf16) = twin(&kernel.name, "_bf16") else { continue };
            let tf32 = twin(&kernel.name, "_tf32");
            for other in [Some(bf16), tf32].into_iter().flatten() {
                check_twins(file, kernel, other)?;
            }
            let differs = |i: usize| kernel.parameters[i].cuda != bf16.parameters[i].cuda;
            let any = |i: usize| match (differs(i), kernel.parameters[i].rust.starts_with("Const")) {
                (false, _) => kernel.parameters[i].rust.clone(),
                (true, true) => "AnyConst".into(),
                (true, false) => "AnyMut".into(),
            };
            let names: Vec<&str> = kernel.parameters.iter().map(|p| p.name.as_str()).collect();
            let all = 0..names.len();
            let parameters: String = all.clone().map(|i| format!(", {}: {}", names[i], any(i))).collect();
            let formats: Vec<String> =
                all.clone().filter(|&i| differs(i)).map(|i| format!("({0}.address, {0}.format)", names[i])).collect();
            let given: String = all
                .map(|i| if differs(i) { format!(", {}.typed()", names[i]) } else { format!(", {}", names[i]) })
                .collect();
            let tf32 = tf32.map(|_| "                Format::Tf32 => super::NAME_tf32(on, gridGIVEN),\n");
            let text = TWINS.replace("TF32", tf32.unwrap_or_default()).replace("PARAMETERS", &parameters);
            out += &text.replace("FORMATS", &formats.join(", ")).replace("GIVEN", &given).replace("NAME", &kernel.name);
        }
    }
    Ok(out + "}\n")
}

fn check_twins(file: &str, kernel: &Kernel, twin: &Kernel) -> Result<(), String> {
    let plain = |p: &Parameter| p.cuda.replace("__nv_bfloat16*", "float*");
    let same = kernel.parameters.len() == twin.parameters.len()
        && kernel.parameters.iter().zip(&twin.parameters).all(|(a, b)| a.name == b.name && plain(a) == plain(b));
    if same {
        return Ok(());
    }
    Err(format!(
        "kernels/{file}.cu:{}: \"{}\" differs from \"{}\" in more than the format of its numbers; twins have the same \
         parameters",
        twin.line, twin.name, kernel.name
    ))
}

/// Writes the C++ file that compiles a kernel file for the CPU and registers its kernels.
pub fn host_source(path: &str, kernels: &[Kernel]) -> String {
    // The unnamed namespace keeps equal names of two kernel files apart, as separate modules do on a GPU.
    let mut out = format!("#include \"cuda_host.h\"\nnamespace {{\n#include \"{path}\"\n}}\n");
    for kernel in kernels {
        let _ = writeln!(out, "EMU_KERNEL({})", kernel.name);
    }
    out
}
