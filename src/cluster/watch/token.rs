//! The secret of a job.

use crate::error::{Error, Result};
use rand::TryRng;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The length of a token in bytes.
const LENGTH: usize = 32;

/// The secret of a job, by which process 0 recognises the others. It is written as 64 hexadecimal digits.
#[derive(Clone, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token([u8; LENGTH]);

impl Token {
    /// Creates a token that nobody can guess.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; LENGTH];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
            Error::Run(format!("the operating system returned no random numbers for the token of the job: {error}"))
        })?;
        Ok(Token(bytes))
    }
}

impl Token {
    /// Returns the token of one job among those with this secret.
    pub fn of_job(&self, job: &str) -> Self {
        let mut bytes = self.0;
        for (number, part) in bytes.chunks_mut(8).enumerate() {
            let hash = xxh3_64_with_seed(job.as_bytes(), number as u64).to_le_bytes();
            part.iter_mut().zip(hash).for_each(|(byte, hash)| *byte ^= hash);
        }
        Token(bytes)
    }
}

impl Default for Token {
    /// Returns the token of those who have no secret.
    fn default() -> Self {
        Token([0; LENGTH])
    }
}

impl PartialEq for Token {
    /// Compares in a time that does not depend on where they differ.
    fn eq(&self, other: &Self) -> bool {
        let differ = self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| black_box(differ | (a ^ b)));
        black_box(differ) == 0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Token {
    /// Hides the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Usage(format!("the token has {} characters, expected 64 hexadecimal digits", text.chars().count()))
        };
        if text.len() != 2 * LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; LENGTH];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Token(bytes))
    }
}

impl TryFrom<String> for Token {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_hidden_in_debug_output() {
        let (token, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert!(token != other);
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn other_text_is_no_token() {
        for text in ["", "12", &"g".repeat(64), &"\u{e9}".repeat(32), &"0".repeat(66)] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains("expected 64 hexadecimal digits"), "{error}");
        }
    }
}
