//! `peristyle diagnose`: one file per diagnosis.

mod init;

use crate::error::Result;

/// Arguments of `diagnose`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    diagnosis: Diagnosis,
}

#[derive(Debug, clap::Subcommand)]
enum Diagnosis {
    /// Examines a network at its initial values: whether activations or gradients vanish, explode or saturate.
    Init(init::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.diagnosis {
        Diagnosis::Init(arguments) => init::run(arguments),
    }
}
