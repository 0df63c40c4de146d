//! Variables of the environment that hold numbers.

use crate::error::{Error, Result};

/// The environment of this process, or one that a test makes up.
pub(super) struct Variables<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// Returns a variable, unless it is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
    }

    /// Returns the number in a variable, if it is set.
    ///
    /// # Errors
    /// If it is no whole number from 0.
    pub fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::Usage(format!(
                "{name} = {text:?}, expected a whole number from 0; correct it, or unset it to train in one process"
            ))),
        }
    }

    /// Returns the numbers in two variables: a number below a count.
    ///
    /// # Errors
    /// If one is set without the other, or the first is not below the second.
    pub fn place(&self, number: &'static str, count: &'static str) -> Result<Option<(usize, usize)>> {
        let wrong = |message: String| Err(Error::Usage(message));
        match (self.number(number)?, self.number(count)?) {
            (None, None) => Ok(None),
            (Some(at), Some(all)) if at < all => Ok(Some((at, all))),
            (Some(at), Some(all)) => wrong(format!(
                "{number} = {at} and {count} = {all}, expected {number} below {count}; start with the launcher that sets both, or \
                 unset both to train in one process"
            )),
            (Some(at), None) => wrong(missing((number, at), count)),
            (None, Some(all)) => wrong(missing((count, all), number)),
        }
    }
}

fn missing((is_set, value): (&str, usize), is_missing: &str) -> String {
    format!(
        "{is_set} = {value} is set, but {is_missing} is not; start with the launcher that sets both, or unset {is_set} to train in one \
         process"
    )
}
