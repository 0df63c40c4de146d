//! Splits a kernel file into words, marks, texts and comments.

/// A piece of C++.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name, a keyword or a number.
    Word(String),
    /// A string with its quotation marks.
    Text(String),
    /// Any other character.
    Mark(char),
    /// A comment from `//` to the end of its line.
    Comment(String),
}

/// A token and its location.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The token.
    pub token: Token,
    /// Its line, from 1.
    pub line: usize,
    /// Whether it belongs to a preprocessor directive.
    pub directive: bool,
}

/// Splits a source into tokens.
pub fn tokens(source: &str) -> Vec<Placed> {
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

/// The tokens of a source without its comments, which are looked up by line.
#[derive(Debug)]
pub struct Code {
    file: String,
    tokens: Vec<Placed>,
    comments: Vec<(usize, String)>,
}

impl Code {
    /// Splits a source into tokens; `file` is its name in messages.
    pub fn of(file: &str, source: &str) -> Self {
        let mut code = Code { file: file.to_string(), tokens: Vec::new(), comments: Vec::new() };
        for placed in tokens(source) {
            match placed.token {
                Token::Comment(text) => code.comments.push((placed.line, text)),
                _ => code.tokens.push(placed),
            }
        }
        code
    }

    /// Returns the tokens.
    pub fn tokens(&self) -> &[Placed] {
        &self.tokens
    }

    /// Returns the word at a position, or "".
    pub fn word(&self, i: usize) -> &str {
        match self.tokens.get(i).map(|p| &p.token) {
            Some(Token::Word(word)) => word,
            _ => "",
        }
    }

    /// Returns true if the words and marks of `expected`, separated by spaces, begin at a position.
    pub fn reads(&self, i: usize, expected: &str) -> bool {
        expected.split(' ').enumerate().all(|(j, part)| match self.tokens.get(i + j).map(|p| &p.token) {
            Some(Token::Word(word)) => word == part,
            Some(Token::Mark(mark)) => part.chars().eq([*mark]),
            _ => false,
        })
    }

    /// Returns the line of a position.
    pub fn line(&self, i: usize) -> usize {
        self.tokens.get(i).or(self.tokens.last()).map_or(1, |p| p.line)
    }

    /// Returns the comment at the end of a line.
    pub fn comment(&self, line: usize) -> &str {
        self.comments.iter().find(|(at, _)| *at == line).map_or("", |(_, text)| text)
    }

    /// Returns `file:line` of the token at a position.
    pub fn place(&self, i: usize) -> String {
        format!("{}:{}", self.file, self.line(i))
    }

    /// Returns `file:line: message` for the token at a position.
    pub fn fault(&self, i: usize, message: impl std::fmt::Display) -> String {
        format!("{}: {message}", self.place(i))
    }
}
