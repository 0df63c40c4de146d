//! The list of all checks, and their results.

use super::compare::{Row, Tally};
use super::device::{Device, Effort};
use super::layers::{HALF, PrecisionCase};
use super::{collectives, images, layers, nccl as of_nccl, optimizer, pieces, training};
use crate::config;
use crate::device::LibraryUse;
use crate::error::{Error, Problem, Result};
use crate::gpu::libraries::{Choices, LibraryReport};
use crate::gpu::{Driver, DriverKind, libraries, nccl};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// A form in which kernels run on the device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Image {
    /// Its description: `machine code for sm_90`.
    pub code: String,
    /// Number of kernels in this form.
    pub kernels: usize,
}

/// The results of all checks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelftestReport {
    /// The version of peristyle.
    pub version: &'static str,
    /// `cpu`, `cuda:0` or `emu`.
    pub device: String,
    /// The name that the device reports.
    pub name: String,
    /// Its compute capability; null if it has none.
    pub capability: Option<String>,
    /// The forms in which its kernels run; empty on the CPU.
    pub images: Vec<Image>,
    /// True if only a part was checked.
    pub quick: bool,
    /// The checks.
    pub rows: Vec<Row>,
    /// What NVIDIA's libraries computed in the checks of them; null where they were not checked.
    pub libraries: Option<LibraryReport>,
    /// The checks that were skipped on this device.
    pub skipped: Vec<String>,
    /// Seconds in total.
    pub seconds: f64,
    /// True if all checks passed.
    pub passed: bool,
}

/// An event while the checks run.
#[derive(Debug)]
pub enum SelftestEvent<'a> {
    /// A check begins.
    Begins(&'a str),
    /// A check has finished.
    Done(&'a Row),
}

/// The checks of one device.
#[derive(Debug)]
pub struct Selftest {
    device: Device,
    effort: Effort,
    libraries: bool,
    images: Vec<Image>,
}

/// The precision of everything except layers.
const SINGLE_NAME: &str = "f32";

impl Selftest {
    /// Opens a device: `auto`, `cpu`, `emu` or `cuda:0`. With `libraries`, the checks of a GPU end with those of
    /// NVIDIA's libraries, if they are present.
    ///
    /// # Errors
    /// If there is no such device, or it cannot be used.
    pub fn open(device: &str, effort: Effort, libraries: bool) -> Result<Selftest> {
        let job = training::job(device, &[]).map_err(|error| match error {
            Error::Config(problems) => {
                let at_option = |p| Problem { location: "--device".to_string(), ..p };
                Error::Config(problems.found.into_iter().map(at_option).collect::<Vec<_>>().into())
            }
            other => other,
        });
        let devices = job?.0.config.devices;
        if devices.len() > 1 && device != "auto" {
            let n = devices.len();
            return Err(Error::Usage(format!(
                "--device {device}: {n} devices, expected one; use \"auto\", \"cpu\", \"emu\" or \"cuda:0\""
            )));
        }
        let (ordinal, threads) = (devices.ordinals[0], devices.threads);
        let name = match devices.kind {
            config::DeviceKind::Cuda => devices.name(0),
            kind => kind.to_string(),
        };
        let driver = devices.kind.driver().map(|kind| Driver::open(kind, ordinal, threads)).transpose()?;
        let images = driver.as_ref().map_or(Ok(Vec::new()), Driver::codes)?;
        let images = images.into_iter().map(|(code, kernels)| Image { code: code.to_string(), kernels }).collect();
        Ok(Selftest { device: Device { name, ordinal, threads, driver }, effort, libraries, images })
    }

    /// Returns the name that the device reports.
    pub fn name(&self) -> &str {
        self.device.driver.as_ref().map_or("this machine's processor", Driver::name)
    }

    /// Runs every check whose name contains `only`, and reports each with `tell`. An error of the device fails the current
    /// case; the others still run, unless it ended all use of the device.
    pub fn run(&self, only: &str, tell: &mut dyn FnMut(SelftestEvent)) -> SelftestReport {
        let (device, effort, begin) = (&self.device, self.effort, Instant::now());
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        let mut used = None;
        // The check in which the device was lost, and the checks that could not run after it.
        let mut lost: Option<(String, Vec<String>)> = None;
        let mut row = |check: &str, precision: &'static str, bound: f64, run: &mut dyn FnMut(&mut Tally)| {
            let name = format!("{check} {precision}");
            if !name.contains(only) {
                return;
            }
            if let Some((_, after)) = &mut lost {
                after.push(name);
                return;
            }
            tell(SelftestEvent::Begins(&name));
            let (mut tally, start) = (Tally::new(check, precision, bound, device.driver.as_ref()), Instant::now());
            run(&mut tally);
            if tally.lost {
                lost = Some((name, Vec::new()));
            }
            let row = tally.row(start.elapsed().as_secs_f64());
            tell(SelftestEvent::Done(&row));
            rows.push(row);
        };
        let precisions = if device.driver.is_some() { layers::PRECISIONS } else { &layers::PRECISIONS[..1] };
        for &precision in precisions {
            for kind in crate::layers::KEYS {
                row(kind, precision.name, precision.bound, &mut |tally| {
                    layers::check(kind, precision, device, effort, tally);
                });
            }
        }
        row("dropout words", SINGLE_NAME, 0.0, &mut |tally| pieces::dropout(device, tally));
        row("optimizer", SINGLE_NAME, optimizer::BOUND, &mut |tally| optimizer::check(device, effort, tally));
        match (&device.driver, device.kind()) {
            (Some(driver), Some(kind)) => {
                row("copies and sums", SINGLE_NAME, 0.0, &mut |tally| pieces::strided(device, kind, tally));
                row("augmentation", SINGLE_NAME, 0.0, &mut |tally| images::check(device, kind, effort, tally));
                row("casts", "bf16", 0.0, &mut |tally| pieces::casts(driver, tally));
            }
            _ => skipped.push("copies and sums, augmentation, casts, tf32 and bf16: not used on the CPU".to_string()),
        }
        for collective in collectives::ALL {
            row(&collective.to_string(), SINGLE_NAME, collectives::BOUND, &mut |tally| {
                collectives::check(collective, device, effort, tally);
            });
            if let Some(kind) = device.kind() {
                row(&collective.to_string(), "bf16", 0.0, &mut |tally| {
                    collectives::check_bf16(collective, device, kind, effort, tally);
                });
            }
        }
        for mesh in training::meshes(effort) {
            let check = format!("train {}x{}", mesh.0, mesh.1);
            let way = (*mesh, (SINGLE_NAME, training::BOUND));
            row(&check, SINGLE_NAME, training::BOUND, &mut |tally| training::check(way, device, effort, tally));
        }
        if device.driver.is_some() && effort != Effort::Quick {
            for precision in training::ROUNDED {
                let way = ((1, 1), precision);
                row("train 1x1", precision.0, precision.1, &mut |tally| training::check(way, device, effort, tally));
            }
        }
        match (&device.driver, nccl::nccl()) {
            (Some(Driver::Cuda(_)), Ok(_)) if self.libraries => {
                row("NCCL", SINGLE_NAME, 0.0, &mut |tally| of_nccl::check(device, tally));
            }
            (Some(Driver::Cuda(_)), Err(error)) if self.libraries => skipped.push(error.to_string()),
            _ => {}
        }
        // Last, because from here on NVIDIA's libraries compute the products and convolutions that they support.
        match &device.driver {
            Some(Driver::Cuda(_)) if !self.libraries => skipped.push("libraries: --no-libraries".to_string()),
            Some(Driver::Cuda(_)) if libraries::present() => {
                let choices = Arc::<Choices>::default();
                let mut with = |libraries, device: &Device, kinds: &[&str], cases: &[PrecisionCase]| {
                    let driver = device.driver.as_ref().expect("the device is a GPU");
                    driver.use_libraries(libraries, &choices)?;
                    for (kind, case) in kinds.iter().flat_map(|kind| cases.iter().map(move |case| (kind, *case))) {
                        // Outputs with a bias are rounded twice.
                        let case = PrecisionCase { bound: 2.0 * case.bound, ..case };
                        let name = format!("{kind}, {libraries:?} libraries").to_lowercase();
                        row(&name, case.name, case.bound, &mut |tally| {
                            layers::check(kind, case, device, effort, tally);
                        });
                    }
                    Ok(())
                };
                let done = with(LibraryUse::Auto, device, &["conv", "dense"], precisions).and_then(|()| {
                    let driver = Some(Driver::open(DriverKind::Cuda, device.ordinal, device.threads)?);
                    let other = Device { name: device.name.clone(), driver, ..*device };
                    with(
                        LibraryUse::Fast,
                        &other,
                        &["conv"],
                        &[PrecisionCase { others: 2.0 * HALF, ..layers::PRECISIONS[2] }],
                    )
                });
                used = Some(LibraryReport::of(&choices));
                skipped.extend(done.err().map(|error: Error| format!("libraries: {error}")));
            }
            Some(Driver::Cuda(_)) => skipped.extend(libraries::described()),
            _ => {}
        }
        if let Some((name, after)) = lost.filter(|(_, after)| !after.is_empty()) {
            let after = after.join(", ");
            skipped.push(format!("{after}: the device was lost in \"{name}\"; run them in a new process with --only"));
        }
        let capability = device.driver.as_ref().map(Driver::capability).filter(|&capability| capability != (0, 0));
        SelftestReport {
            version: env!("CARGO_PKG_VERSION"),
            device: device.name.clone(),
            name: self.name().to_string(),
            capability: capability.map(|(major, minor)| format!("{major}.{minor}")),
            images: self.images.clone(),
            quick: effort == Effort::Quick,
            passed: rows.iter().all(Row::passed),
            rows,
            libraries: used,
            skipped,
            seconds: begin.elapsed().as_secs_f64(),
        }
    }
}
