//! `peristyle bench step CONFIG`, `bench layers CONFIG`, `bench data CONFIG`, `bench allreduce`.

use super::configured::Configured;
use super::launched;
use super::output::{notes, print, print_json};
use crate::diagnose::bench::{self, AllReduces, Bench, Effort, InputSpeed, Layers, ProcessReduces, StepTime};
use crate::error::{Error, Result, quantity};
use serde::Serialize;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// Measures the training step of a configuration, on a batch in memory: no data files are needed.
    Step(Step),
    /// Measures the layers of a configuration within its training step.
    Layers(Step),
    /// Measures how fast the training data of a configuration are read, decoded and prepared, by one thread and by several.
    Data(Data),
    /// Measures all-reduces, from 64 KiB to 64 MiB, as a ring and, on CPU devices, in one pass.
    Allreduce(Devices),
}

#[derive(Debug, clap::Args)]
struct Step {
    #[command(flatten)]
    configured: Configured,
    #[command(flatten)]
    measurement: Measurement,
}

#[derive(Debug, clap::Args)]
struct Data {
    #[command(flatten)]
    configured: Configured,
    /// The number of threads of the loader; by default, one for each core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    #[command(flatten)]
    measurement: Measurement,
}

#[derive(Debug, clap::Args)]
struct Devices {
    /// The devices: cpu*4, cuda:0-3; of each process with --processes, where auto is the default, otherwise cpu*4.
    #[arg(long, alias = "device", value_name = "DEVICES")]
    devices: Option<String>,
    /// Measures between processes, which a launcher starts: algbw and busbw as nccl-tests define them.
    #[arg(long)]
    processes: bool,
    /// How GPUs read each other's memory: auto, off.
    #[arg(long, value_name = "ACCESS")]
    peer_access: Option<String>,
    #[command(flatten)]
    measurement: Measurement,
}

#[derive(Debug, clap::Args)]
struct Measurement {
    /// Seconds of measurement, over all repeats; for allreduce, per size and algorithm.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Number of repeats; the median is printed with minimum and maximum.
    #[arg(long, value_name = "R", default_value_t = 5)]
    repeats: usize,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

impl Measurement {
    fn effort(&self) -> Result<Effort> {
        let (seconds, repeats) = (self.seconds, self.repeats);
        if !(seconds > 0.0 && seconds <= 86_400.0) {
            return Err(Error::Usage(format!("--seconds {seconds}: expected more than 0 and at most a day")));
        }
        if !(1..=10_000).contains(&repeats) {
            return Err(Error::Usage(format!("--repeats {repeats}: expected 1 to 10000")));
        }
        Ok(Effort { seconds, repeats })
    }

    fn print<T: Serialize>(&self, report: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if !self.json {
            return print(&text(report));
        }
        let json = serde_json::to_string(report);
        print_json(
            &(json.map_err(|error| Error::Run(format!("the report cannot be written as JSON: {error}")))? + "\n"),
        )
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.benchmark {
        Benchmark::Step(step) => {
            let effort = step.measurement.effort()?;
            step.measurement.print(&bench::step(&mut step.open()?, effort)?, step_text)
        }
        Benchmark::Layers(step) => {
            let effort = step.measurement.effort()?;
            step.measurement.print(&bench::layers(&mut step.open()?, effort)?, layers_text)
        }
        Benchmark::Data(data) => {
            let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
            let (config, sets) = (&data.configured.config, data.configured.sets());
            let threads = data.threads.map_or_else(cores, usize::from);
            data.measurement.print(&bench::input(config, &sets, threads, data.measurement.effort()?)?, data_text)
        }
        Benchmark::Allreduce(all) => {
            let effort = all.measurement.effort()?;
            let access = all.peer_access.iter().map(|access| format!("devices.peer_access={access:?}"));
            let default = if all.processes { "auto" } else { "cpu*4" };
            let devices = all.devices.as_deref().unwrap_or(default);
            let sets: Vec<String> = access.chain([format!("devices.use={devices:?}")]).collect();
            if all.processes {
                return between(all, &sets, effort);
            }
            all.measurement.print(&bench::all_reduce(&sets, effort)?, allreduce_text)
        }
    }
}

impl Arguments {
    /// Returns whether it measures something between processes.
    pub fn is_between_processes(&self) -> bool {
        matches!(&self.benchmark, Benchmark::Allreduce(all) if all.processes)
    }
}

/// Measures all-reduces between the processes of a launcher; process 0 prints them.
fn between(all: &Devices, sets: &[String], effort: Effort) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let job = bench::between_processes(&variable, sets)?;
    let Some(process) = job.config.process.clone() else {
        return Err(Error::Usage(
            "--processes: there is one process; start several with mpirun -n 4, srun -n 4, torchrun or peristyle launch -n 4".to_string(),
        ));
    };
    let devices = &job.config.devices;
    let (mover, each, timeouts) = (devices.mover(), devices.each(), job.config.cluster.timeouts);
    launched::run(&process, mover, timeouts, each, |launched| {
        let report = bench::all_reduce_between(job, launched.team, effort)?;
        if launched.team.rank() > 0 {
            return Ok(());
        }
        all.measurement.print(&report, between_text)
    })
}

fn between_text(report: &ProcessReduces) -> String {
    let load = report.load_average.map_or(String::new(), |load| format!(", load average {load}"));
    let mut text = format!(
        "{} x {} of {} processes by {}{load}\n\n{:>10} {:>10} {:>10} {:>10} {:>12} {:>12}\n",
        report.devices,
        report.device,
        report.processes,
        report.library,
        "KiB",
        "ms",
        "min",
        "max",
        "algbw GB/s",
        "busbw GB/s"
    );
    for line in &report.all_reduces {
        text += &format!(
            "{:>10} {:>10.4} {:>10.4} {:>10.4} {:>12.3} {:>12.3}\n",
            line.bytes / 1024,
            line.ms,
            line.ms_min,
            line.ms_max,
            line.algbw_gb_per_second,
            line.busbw_gb_per_second
        );
    }
    text
}

impl Step {
    fn open(&self) -> Result<Bench> {
        let bench = Bench::open(&self.configured.config, &self.configured.sets())?;
        notes(&bench.job.notes);
        Ok(bench)
    }
}

fn about(about: &bench::About) -> String {
    let bench::About { network, batch, device, devices, threads, precision, .. } = about;
    let load = about.load_average.map_or(String::new(), |load| format!(", load average {load}"));
    format!(
        "{network}: batch {batch}, {devices} x {device} ({}), {precision}{load}\n",
        quantity(*threads as u64, "thread")
    )
}

fn step_text(report: &StepTime) -> String {
    let r = report;
    let (product, copy) = (100.0 * r.product_ratio, 100.0 * r.copy_ratio);
    about(&r.about)
        + &format!(
            "step       {:>10.3} ms  ({:.3} to {:.3} over {} repeats, {} steps)\n",
            r.step_ms, r.step_ms_min, r.step_ms_max, r.repeats, r.steps
        )
        + &format!(
            "images/s   {:>10.1}     ({:.1} to {:.1})\n",
            r.images_per_second, r.images_per_second_min, r.images_per_second_max
        )
        + &format!("products   {:>10.4} TFLOP/s, {product:.1} % of {:.4} measured\n", r.tflops, r.limits.limit_tflops)
        + &format!(
            "memory     {:>10.2} GB/s, {copy:.1} % of {:.2} measured\n",
            r.gb_per_second, r.limits.limit_gb_per_second
        )
}

fn data_text(report: &InputSpeed) -> String {
    let InputSpeed { name, images, shape: [h, w, c], load_average, stages } = report;
    let load = load_average.map_or(String::new(), |load| format!(", load average {load}"));
    let mut text = format!(
        "{name}: {} of {h}x{w}x{c}{load}\n\n{:<8} {:>7} {:>10} {:>10} {:>10} {:>10} {:>9}\n",
        quantity(*images as u64, "image"),
        "stage",
        "threads",
        "images/s",
        "min",
        "max",
        "/thread",
        "MB/s"
    );
    for stage in stages {
        text += &format!(
            "{:<8} {:>7} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>9.1}\n",
            stage.stage,
            stage.threads,
            stage.images_per_second,
            stage.images_per_second_min,
            stage.images_per_second_max,
            stage.images_per_thread,
            stage.mb_per_second
        );
    }
    text
}

fn layers_text(report: &Layers) -> String {
    let mut text = about(&report.about);
    let limits = report.limits;
    text += &format!(
        "step {:.3} ms; limits: products {:.4} TFLOP/s, copies {:.2} GB/s; {} runs\n\n",
        report.step_ms, limits.limit_tflops, limits.limit_gb_per_second, report.runs
    );
    text += &format!(
        "{:<24} {:<22} {:<9} {:>9} {:>7} {:>9} {:>6} {:>9} {:>6}\n",
        "layer", "kind", "pass", "ms", "share", "TFLOP/s", "%", "GB/s", "%"
    );
    for line in &report.layers {
        text += &format!(
            "{:<24} {:<22} {:<9} {:>9.4} {:>6.1}% {:>9.4} {:>6.1} {:>9.2} {:>6.1}\n",
            line.layer,
            line.kind,
            line.pass,
            line.ms,
            100.0 * line.share,
            line.tflops,
            100.0 * line.product_ratio,
            line.gb_per_second,
            100.0 * line.copy_ratio
        );
    }
    text
}

fn allreduce_text(report: &AllReduces) -> String {
    let load = report.load_average.map_or(String::new(), |load| format!(", load average {load}"));
    let through = if report.through_host { " through host memory" } else { "" };
    let mut text = format!(
        "{} x {}{through}, one thread's memcpy {:.2} GB/s{load}\n\n{:<9} {:>9} {:>10} {:>10} {:>10} {:>12} {:>9}\n",
        report.devices,
        report.device,
        report.memcpy_gb_per_second,
        "algorithm",
        "KiB",
        "ms",
        "min",
        "max",
        "busbw GB/s",
        "x memcpy"
    );
    for line in &report.all_reduces {
        text += &format!(
            "{:<9} {:>9} {:>10.4} {:>10.4} {:>10.4} {:>12.3} {:>9.3}\n",
            line.form,
            line.bytes / 1024,
            line.ms,
            line.ms_min,
            line.ms_max,
            line.busbw_gb_per_second,
            line.memcpy_ratio
        );
    }
    text
}
