//! `peristyle ckpt show`, `ckpt diff`, `ckpt verify` and `ckpt export`.

use super::output::{print, print_json};
use crate::error::{Error, Result, printable, quantity};
use crate::optim::Ema;
use crate::storage::Fs;
use crate::tensor::MatmulPrecision;
use crate::train::checkpoint::{self, Checkpoint};
use crate::train::weights::{NamedTensor, TensorData, TensorFile, encode, pieces};
use std::path::{Path, PathBuf};

/// Arguments of `ckpt`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints what a checkpoint holds: its position, settings, data, results and tensors.
    Show(Show),
    /// Compares the tensors and settings of two checkpoints; exit code 1 if they differ.
    Diff(Diff),
    /// Verifies every byte of a checkpoint, or of all checkpoints of a run; exit code 1 if one is damaged.
    Verify(Verify),
    /// Writes the weights of a checkpoint to one safetensors file: the averages of train.ema, if the run keeps them.
    Export(ExportWeights),
}

#[derive(Debug, clap::Args)]
struct ExportWeights {
    /// A run directory, whose newest valid checkpoint is used, or a checkpoint.
    checkpoint: PathBuf,
    /// The file to write, which must not exist.
    file: PathBuf,
    /// Writes the weights themselves where the run also keeps their averages.
    #[arg(long)]
    trained: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A run directory, whose newest valid checkpoint is shown, or a checkpoint.
    checkpoint: PathBuf,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Diff {
    /// A run directory or a checkpoint.
    a: PathBuf,
    /// Another one.
    b: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Run directories or checkpoints.
    #[arg(required = true)]
    checkpoints: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Show(Show { checkpoint, json }) => show(&newest(checkpoint)?, *json),
        Command::Diff(Diff { a, b }) => diff(&newest(a)?, &newest(b)?),
        Command::Verify(Verify { checkpoints }) => verify(checkpoints),
        Command::Export(ExportWeights { checkpoint, file, trained }) => export(&newest(checkpoint)?, file, *trained),
    }
}

fn newest(path: &Path) -> Result<Checkpoint> {
    Ok(checkpoint::latest(&Fs::default(), path, "")?.checkpoint)
}

fn files(checkpoint: &Checkpoint) -> [(&'static str, &TensorFile); 2] {
    [("model", &checkpoint.model), ("state", &checkpoint.state)]
}

fn show(checkpoint: &Checkpoint, json: bool) -> Result<()> {
    let info = &checkpoint.info;
    if json {
        let failed = |e| Error::Run(format!("the checkpoint cannot be written as JSON: {e}"));
        let mut all = serde_json::to_value(info).map_err(failed)?;
        for (name, file) in files(checkpoint) {
            let tensor = |t: &crate::train::weights::TensorSpec| serde_json::json!({ "name": t.name, "shape": t.shape.0, "type": format!("{:?}", t.dtype) });
            all[name] = file.tensors.iter().map(tensor).collect();
        }
        return print_json(&format!("{all}\n"));
    }
    let mut text = format!(
        "{}\nstep {}, epoch {}, sample {} of the epoch, {} samples in all\n{}, mesh {}, seed {}, peristyle {}, format {}\n",
        printable(&checkpoint.path.display().to_string()),
        info.step,
        info.place.epoch,
        info.place.sample,
        info.samples,
        MatmulPrecision::default().name(info.precision),
        info.mesh,
        info.seed,
        info.version,
        info.format
    );
    if let Some(data) = &info.data {
        for (name, set) in [("training", Some(&data.train)), ("test", data.test.as_ref())] {
            if let Some(set) = set {
                let (images, [h, w, c], targets) = (set.header.images, set.header.shape, set.header.targets());
                let fingerprint = &set.fingerprint;
                text += &format!("{name} data: {images} images of {h}x{w}x{c}, {targets}, fingerprint {fingerprint}\n");
            }
        }
    }
    for e in &info.evaluations {
        let metrics: String = e.metrics.iter().map(|(name, value)| format!(", {name} {value:.4}")).collect();
        text += &format!("step {}: {} loss {:.6}{metrics}\n", e.step, e.split, e.loss);
    }
    text += "\n";
    info.settings.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
    for (name, file) in files(checkpoint) {
        let values: usize = file.tensors.iter().map(|tensor| tensor.shape.elements()).sum();
        let count = quantity(file.tensors.len() as u64, "tensor");
        text += &format!("\n{name}: {count}, {}\n", quantity(values as u64, "value"));
        for tensor in &file.tensors {
            text += &format!("  {:<40} {:<20} {:?}\n", tensor.name, tensor.shape.to_string(), tensor.dtype);
        }
    }
    print(&text)
}

/// Returns the largest absolute difference of a tensor's values and the largest value, or `None` if all bits are equal.
fn apart((a, i): (&TensorFile, usize), (b, j): (&TensorFile, usize)) -> Result<Option<(f64, f64)>> {
    let doubles = |data: TensorData| match data {
        TensorData::F32(values) => values.into_iter().map(f64::from).collect::<Vec<_>>(),
        TensorData::F64(values) => values,
    };
    let (mut differ, mut worst, mut largest) = (false, 0.0f64, 0.0f64);
    for rows in pieces(&a.tensors[i].shape) {
        let (x, y) = (doubles(a.rows(i, rows.clone())?), doubles(b.rows(j, rows)?));
        for (x, y) in x.iter().zip(&y) {
            differ |= x.to_bits() != y.to_bits();
            // A difference that is not a number is the largest.
            let difference = (x - y).abs();
            worst =
                if difference.is_nan() && x.to_bits() != y.to_bits() { f64::INFINITY } else { worst.max(difference) };
            largest = largest.max(x.abs()).max(y.abs());
        }
    }
    Ok(differ.then_some((worst, largest)))
}

fn diff(a: &Checkpoint, b: &Checkpoint) -> Result<()> {
    let mut lines = Vec::new();
    let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_string();
    let keys: std::collections::BTreeSet<&String> = a.info.settings.keys().chain(b.info.settings.keys()).collect();
    for key in keys {
        let (x, y) = (a.info.settings.get(key), b.info.settings.get(key));
        if x != y {
            lines.push(format!("setting {key}: {} and {}", show(x), show(y)));
        }
    }
    if a.info.step != b.info.step {
        lines.push(format!("step: {} and {}", a.info.step, b.info.step));
    }
    for ((name, x), (_, y)) in files(a).into_iter().zip(files(b)) {
        for (i, tensor) in x.tensors.iter().enumerate() {
            let Some(j) = y.find(&tensor.name) else {
                lines.push(format!("{name} {}: only in the first", tensor.name));
                continue;
            };
            if y.tensors[j].shape != tensor.shape {
                lines.push(format!("{name} {}: shapes {} and {}", tensor.name, tensor.shape, y.tensors[j].shape));
            } else if let Some((worst, largest)) = apart((x, i), (y, j))? {
                lines
                    .push(format!("{name} {}: differs by up to {worst:.3e}, largest value {largest:.3e}", tensor.name));
            }
        }
        let only = y.tensors.iter().filter(|tensor| x.find(&tensor.name).is_none());
        lines.extend(only.map(|tensor| format!("{name} {}: only in the second", tensor.name)));
    }
    if lines.is_empty() {
        return print("identical: all tensors have the same bits, all settings are the same\n");
    }
    print(&(lines.join("\n") + "\n"))?;
    Err(Error::Goal(format!("the checkpoints differ in {}", quantity(lines.len() as u64, "line"))))
}

fn export(checkpoint: &Checkpoint, to: &Path, trained: bool) -> Result<()> {
    if to.exists() {
        return Err(Error::Usage(format!("{} exists; name a file that does not", to.display())));
    }
    let mut averages = 0;
    let tensor = |index: usize| {
        let own = checkpoint.model.tensor(index)?;
        let average = checkpoint.state.find(&format!("{}.{}.{}", own.name, Ema::KEY, Ema::AVERAGE));
        match average.filter(|_| !trained) {
            Some(average) => {
                averages += 1;
                Ok(NamedTensor { name: own.name, ..checkpoint.state.tensor(average)? })
            }
            None => Ok(own),
        }
    };
    let tensors: Vec<NamedTensor> = (0..checkpoint.model.tensors.len()).map(tensor).collect::<Result<_>>()?;
    Fs::default().replace(to, &encode(&tensors))?;
    let count = quantity(tensors.len() as u64, "tensor");
    let which = if averages > 0 { format!(", of which {averages} are averages of weights") } else { String::new() };
    print(&format!("step {}: {count}{which}, in {}\n", checkpoint.info.step, printable(&to.display().to_string())))
}

fn verify(paths: &[PathBuf]) -> Result<()> {
    let fs = Fs::default();
    let (mut checked, mut failed) = (0, 0);
    for path in paths {
        for checkpoint in checkpoint::all(&fs, path)? {
            checked += 1;
            let line = match checkpoint::read(&fs, &checkpoint) {
                Ok(read) => format!("{}: ok, step {}\n", printable(&checkpoint.display().to_string()), read.info.step),
                Err(error) => {
                    failed += 1;
                    format!("{}\n", error.with_causes())
                }
            };
            print(&line)?;
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Error::Goal(format!("{failed} of {} cannot be used", quantity(checked, "checkpoint")))),
    }
}
