//! `peristyle diagnose`: one file per diagnosis.

mod flight;
mod hessian;
mod init;
mod jacobian;
mod landscape;
mod lr_range;
mod subject;

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
    /// Computes the spectrum of the Hessian of the loss, and what it says of the learning rate.
    Hessian(hessian::Arguments),
    /// Computes singular values of the Jacobian of each layer and of the whole network.
    Jacobian(jacobian::Arguments),
    /// Shows the loss on a plane through the weights, with the path of a run.
    Landscape(landscape::Arguments),
    /// Shows the loss against a rising learning rate, and suggests a range of rates.
    LrRange(lr_range::Arguments),
    /// Says which process held up the others when their job ended.
    Flight(flight::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.diagnosis {
        Diagnosis::Init(arguments) => init::run(arguments),
        Diagnosis::Hessian(arguments) => hessian::run(arguments),
        Diagnosis::Jacobian(arguments) => jacobian::run(arguments),
        Diagnosis::Landscape(arguments) => landscape::run(arguments),
        Diagnosis::LrRange(arguments) => lr_range::run(arguments),
        Diagnosis::Flight(arguments) => flight::run(arguments),
    }
}
