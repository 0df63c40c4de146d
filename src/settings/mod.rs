//! The settings of the tables of the file: for each, its key, documentation, type, range, unit, default and example stand in
//! one place, from which serde reads it, messages name what was expected, and the reference of the file is written.
//!
//! To add a setting: add a field to a struct in a `settings!` macro. To add a type of values: implement [`Value`].

pub(crate) mod define;
pub(crate) mod range;
pub(crate) mod registry;
pub(crate) mod table;
pub(crate) mod value;

pub(crate) use define::settings;
pub use range::{
    AT_LEAST_ONE, FINITE, FRACTION, INSIDE, NOT_NEGATIVE, POSITIVE, PROBABILITY, Range, SINGLE, SINGLE_OR_ZERO,
};
pub(crate) use registry::{holder, registry};
pub use table::{Setting, Settings};
pub use value::Value;
pub(crate) use value::values;

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        /// Ovens.
        pub struct Oven from heat {
            /// How hot it gets.
            /// In the middle.
            pub heat: f64 = 200.0, in POSITIVE, unit "degrees";
            /// Its trays.
            pub trays: Option<usize> = None, in AT_LEAST_ONE, default "as many as fit";
        }
    }

    settings! {
        /// A name is required.
        pub struct Named {
            /// The name.
            pub name: String, example "\"Agni\"";
            /// Whether it is on.
            pub on: bool = false;
        }
    }

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        table["x"].clone().try_into::<T>().map_err(|error| error.message().to_string())
    }

    #[test]
    fn a_table_has_defaults_and_one_value_may_stand_for_it() {
        assert_eq!(read::<Oven>("{}").unwrap(), Oven::default());
        assert_eq!(read::<Oven>("180").unwrap(), Oven { heat: 180.0, trays: None });
        assert_eq!(read::<Oven>("{ trays = 2 }").unwrap().values(), [("heat", "200".into()), ("trays", "2".into())]);
        assert_eq!(read::<Named>("{ name = \"x\" }").unwrap(), Named { name: "x".into(), on: false });
    }

    #[test]
    fn mistakes_name_what_was_expected() {
        assert_eq!(read::<Named>("{ on = true }").unwrap_err(), "missing field `name`");
        assert_eq!(
            read::<Named>("{ name = \"x\", of = true }").unwrap_err(),
            "unknown field `of`, expected `name` or `on`"
        );
        assert_eq!(
            read::<Oven>("true").unwrap_err(),
            "invalid type: boolean `true`, expected a number, or a table with heat and trays"
        );
        assert!(read::<Named>("3").unwrap_err().ends_with("expected a map"));
        let fault = Oven { heat: -1.0, trays: Some(0) }.check_ranges().unwrap_err();
        assert_eq!((fault.key, &*fault.message), (Some("heat"), "heat = -1, expected a finite number above 0"));
        assert_eq!(
            Oven { trays: Some(0), ..Oven::default() }.check_ranges().unwrap_err().message,
            "trays = 0, expected at least 1"
        );
        assert_eq!(Oven::default().check_ranges(), Ok(()));
    }

    #[test]
    fn the_reference_has_everything() {
        let [heat, trays] = <[Setting; 2]>::try_from(Oven::settings()).unwrap();
        assert_eq!((heat.key, &*heat.doc, heat.kind), ("heat", "How hot it gets. In the middle.", "number"));
        assert_eq!(
            (heat.range, heat.unit, heat.default),
            (Some("a finite number above 0"), Some("degrees"), Some("200".into()))
        );
        assert_eq!((trays.kind, trays.default), ("integer", Some("as many as fit".into())));
        let [name, _] = <[Setting; 2]>::try_from(Named::settings()).unwrap();
        assert_eq!((name.default, name.example), (None, Some("\"Agni\"")));
    }
}
