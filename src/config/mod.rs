//! The configuration: one TOML file with `--set` applied, parsed into types, every mistake reported with its location.
//!
//! Each setting is checked on its own here; how layers fit together is checked in network/. Layers, transforms,
//! schedules and data sources own their settings, so adding one requires no change here. To add a key to a section,
//! add a field to its type and a line where the section is read.

mod blocks;
mod collectives;
mod complete;
mod data;
mod device_kind;
mod devices;
mod diagnostics;
mod document;
mod duration;
mod errors;
mod key;
mod keys;
mod kinds;
mod model;
mod names;
mod optimizer;
mod parse;
mod patterns;
mod pretrained;
mod reference;
mod run_keys;
mod section;
mod set;
mod settings;
mod spans;
mod splits;
mod train;
mod write;

pub use collectives::Collectives;
pub use complete::with_defaults;
pub use device_kind::DeviceKind;
pub use devices::{Devices, PeerAccess};
pub use document::Document;
pub use model::{IMAGES, LayerEntry, Model, Multiplier};
pub use names::{setting_named, settings as setting_paths};
pub use optimizer::{Optimizer, ParameterGroup};
pub use parse::{Config, Environment, Parsed, from_text, from_text_in, read, read_in, sort};
pub use patterns::{NameMap, NameMatch, NamePattern};
pub use pretrained::PretrainedWeights;
pub use reference::reference;
pub use settings::{LENGTH, learned_length, learned_settings};
pub use splits::SplitRule;
pub use train::{BestBy, CheckpointSettings, Every, OnError, OnNonFinite, Train, WatchSettings};
