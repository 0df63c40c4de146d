//! Reads the structs that kernels take by value: plain numbers, the same in C++ and in Rust.

use super::signatures::Scalar;
use super::tokens::Code;

/// A struct of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Its name, the same in C++ and in Rust.
    pub name: String,
    /// The location of its definition: `kernels/pool.cuh:5`.
    pub place: String,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub scalar: Scalar,
    /// The comment at the end of its line.
    pub comment: String,
}

/// Reads `struct name { .. };` in a file. Returns `None` if the file has no such struct.
///
/// # Errors
/// A message `file:line: what cannot be read, and how to write it`.
pub fn read(code: &Code, name: &str) -> Result<Option<Geometry>, String> {
    let head = format!("struct {name} {{");
    let Some(start) = (0..code.tokens().len()).find(|&i| code.reads(i, &head)) else { return Ok(None) };
    let form = format!("expected numbers, as in `int h, w;`, in \"{name}\", the type of a kernel parameter");
    let (mut fields, mut i) = (Vec::new(), start + 3);
    while !code.reads(i, "} ;") {
        let mut words = Vec::new();
        while !code.word(i).is_empty() {
            words.push(code.word(i));
            i += 1;
        }
        words.pop();
        let scalar = Scalar::of(&words.join(" ")).ok_or_else(|| code.fault(i, &form))?;
        // The names of a declaration: the last word, and one after each comma.
        loop {
            let comment = code.comment(code.line(i - 1)).to_string();
            fields.push(Field { name: code.word(i - 1).to_string(), scalar, comment });
            if code.reads(i, ";") {
                break;
            }
            if !code.reads(i, ",") || code.word(i + 1).is_empty() {
                return Err(code.fault(i, form));
            }
            i += 2;
        }
        i += 1;
    }
    Ok(Some(Geometry { name: name.to_string(), place: code.place(start), fields }))
}
