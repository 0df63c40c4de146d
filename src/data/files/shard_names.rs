//! The names of shards, written as one: `train-{000..146}.tar`.

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 1024;
/// The most names that a pattern stands for.
const MOST_NAMES: usize = 100_000;

/// Returns the names that a pattern stands for, in order: `{000..146}` stands for the numbers from 000 to 146, and `{a,b}`
/// for a and b. The last braces change first.
///
/// # Errors
/// What is wrong with the pattern, as a sentence.
pub fn expand(pattern: &str) -> Result<Vec<String>, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("a name of {} bytes, expected at most {LONGEST_PATTERN}", pattern.len()));
    }
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, braces) = rest.split_at(brace);
        let Some(inside) = braces.strip_prefix('{') else {
            return Err(format!("\"{pattern}\" has a }} without a {{ before it; correct it"));
        };
        let Some((inside, after)) = inside.split_once('}') else {
            return Err(format!("\"{pattern}\" has a {{ without a }} behind it; write, for example, {{000..146}}"));
        };
        let choices = choices(inside, names.len())?;
        names =
            names.iter().flat_map(|name| choices.iter().map(move |choice| [name, before, choice].concat())).collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// Returns what stands for the inside of braces, before which there are so many names.
fn choices(inside: &str, names: usize) -> Result<Vec<String>, String> {
    let wrong = |message: &str| Err(format!("{{{inside}}} {message}"));
    let check = |count: u64| match count.checked_mul(names as u64) {
        Some(count) if count <= MOST_NAMES as u64 => Ok(()),
        _ => Err(format!("{{{inside}}} makes more than {MOST_NAMES} names; write fewer, or several patterns")),
    };
    if inside.contains('{') {
        return wrong("has braces in braces; write them one after another");
    }
    if let Some((first, last)) = inside.split_once("..") {
        let number =
            |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
        let (Some(from), Some(to)) = (number(first), number(last)) else {
            return wrong("is no range of numbers, expected, for example, {000..146}");
        };
        if from > to {
            return wrong("counts down, expected the smaller number first");
        }
        check((to - from).saturating_add(1))?;
        let padded = [first, last].iter().any(|digits| digits.len() > 1 && digits.starts_with('0'));
        let width = if padded { first.len().max(last.len()) } else { 0 };
        return Ok((from..=to).map(|number| format!("{number:0width$}")).collect());
    }
    let choices: Vec<&str> = inside.split(',').collect();
    if choices.len() < 2 {
        return wrong("holds one name, expected a range such as {000..146}, or several names such as {a,b}");
    }
    if let Some((index, twice)) = choices.iter().enumerate().find(|(index, name)| choices[..*index].contains(name)) {
        return wrong(&format!("has \"{twice}\" twice (as number {}); list each once", index + 1));
    }
    check(choices.len() as u64)?;
    Ok(choices.into_iter().map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_numbers_and_names() {
        let expanded = |pattern: &str| expand(pattern).unwrap().join(" ");
        assert_eq!(expanded("a.tar"), "a.tar");
        assert_eq!(expanded("t-{008..011}.tar"), "t-008.tar t-009.tar t-010.tar t-011.tar");
        assert_eq!(expanded("{8..11}"), "8 9 10 11");
        assert_eq!(expanded("{0..2}"), "0 1 2");
        assert_eq!(expanded("{1..010}").split(' ').next_back(), Some("010"));
        assert_eq!(expanded("{008..9}"), "008 009");
        assert_eq!(
            expanded("{a,b}/{0..1}{x,}.tar"),
            "a/0x.tar a/0.tar a/1x.tar a/1.tar b/0x.tar b/0.tar b/1x.tar b/1.tar"
        );
        let names = expand("imagenet-train-{000000..001281}.tar").unwrap();
        assert_eq!((names.len(), &*names[1281]), (1282, "imagenet-train-001281.tar"));
        assert_eq!(expand("{1..100000}").unwrap().len(), 100_000);
    }

    #[test]
    fn patterns_that_stand_for_nothing_are_refused() {
        for (pattern, message) in [
            ("t-{5..", "\"t-{5..\" has a { without a } behind it; write, for example, {000..146}"),
            ("t}", "\"t}\" has a } without a { before it; correct it"),
            ("{9..3}", "{9..3} counts down, expected the smaller number first"),
            ("{5..}", "{5..} is no range of numbers, expected, for example, {000..146}"),
            ("{a..c}", "{a..c} is no range of numbers, expected, for example, {000..146}"),
            ("{0..9..2}", "{0..9..2} is no range of numbers, expected, for example, {000..146}"),
            ("{+1..2}", "{+1..2} is no range of numbers, expected, for example, {000..146}"),
            ("{7}", "{7} holds one name, expected a range such as {000..146}, or several names such as {a,b}"),
            ("{}", "{} holds one name, expected a range such as {000..146}, or several names such as {a,b}"),
            ("{a,b,a}", "{a,b,a} has \"a\" twice (as number 3); list each once"),
            ("{a,{b,c}}", "{a,{b,c} has braces in braces; write them one after another"),
            ("{0..100000}", "{0..100000} makes more than 100000 names; write fewer, or several patterns"),
            ("{0..999}{0..999}", "{0..999} makes more than 100000 names; write fewer, or several patterns"),
            (
                "{0..18446744073709551615}",
                "{0..18446744073709551615} makes more than 100000 names; write fewer, or several patterns",
            ),
        ] {
            assert_eq!(expand(pattern).unwrap_err(), message);
        }
        assert!(expand(&"a".repeat(1025)).unwrap_err().starts_with("a name of 1025 bytes"));
    }
}
