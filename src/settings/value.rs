//! The types of values.

use crate::error::number;
use std::path::PathBuf;

/// A type of values.
pub trait Value {
    /// The type that ranges consider: that of the value if it is set.
    type Inner;
    /// The name of the type in the reference.
    const KIND: &'static str;

    /// Returns the value if it is set.
    fn inner(&self) -> Option<&Self::Inner>;

    /// Returns the value as in the file, if it is set.
    fn toml(&self) -> Option<String>;
}

/// Makes types values: each with its name in the reference, and how it is written in the file.
macro_rules! values {
    ($($type:ty, $kind:literal, $value:ident => $toml:expr;)*) => {
        $(impl $crate::settings::value::Value for $type {
            type Inner = Self;
            const KIND: &'static str = $kind;
            fn inner(&self) -> Option<&Self> {
                Some(self)
            }
            fn toml(&self) -> Option<String> {
                let $value = self;
                Some($toml)
            }
        })*
    };
}
pub(crate) use values;

values! {
    f64, "number", x => number(*x);
    usize, "integer", n => n.to_string();
    u64, "integer", n => n.to_string();
    bool, "true or false", x => x.to_string();
    String, "text", text => format!("{text:?}");
    PathBuf, "file name", path => format!("{:?}", path.display().to_string());
    [usize; 3], "list of 3 integers", list => format!("{list:?}");
    [f64; 2], "list of 2 numbers", list => format!("[{}, {}]", number(list[0]), number(list[1]));
}

impl<T: Value> Value for Vec<T> {
    type Inner = Self;
    const KIND: &'static str = "list";
    fn inner(&self) -> Option<&Self> {
        Some(self)
    }
    fn toml(&self) -> Option<String> {
        let all: Vec<String> = self.iter().filter_map(T::toml).collect();
        Some(format!("[{}]", all.join(", ")))
    }
}

impl<T: Value<Inner = T>> Value for Option<T> {
    type Inner = T;
    const KIND: &'static str = T::KIND;
    fn inner(&self) -> Option<&T> {
        self.as_ref()
    }
    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(T::toml)
    }
}
