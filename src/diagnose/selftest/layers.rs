//! Checks single layers: the cases that tests and `selftest` run on every layer, and the rows of layers in the table.

use super::compare::{Compared, Tally, unfit, worst, worst_bits};
use super::device::{Device, Effort};
use crate::cpu::{Implementation, Scalar};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Fault, Result};
use crate::gpu::Driver;
use crate::layers::{self, Activation, Layer, Mode, ReluMask, Role, Setup, SingleLayer, Split};
use crate::tensor::{Dim, MatmulPrecision, Mesh, Placement};
use half::bf16;

/// A layer with its inputs and a number of samples.
#[derive(Debug)]
pub struct Case {
    /// The layer.
    pub layer: Box<dyn Layer>,
    /// The shapes of its inputs, for one sample.
    pub inputs: Vec<Activation>,
    /// Number of samples.
    pub rows: usize,
    /// Its name in messages.
    pub name: String,
}

impl Case {
    /// Creates a case of a layer on inputs.
    pub fn new(layer: Box<dyn Layer>, inputs: Vec<Activation>, rows: usize) -> Self {
        let name = format!("{layer:?} on {} x {rows}", inputs[0]);
        Case { layer, inputs, rows, name }
    }

    /// Returns the examples of all layers, on three samples, which two devices cannot divide evenly.
    pub fn examples() -> Vec<Case> {
        layers::all_examples().into_iter().map(|(layer, inputs)| Case::new(layer, inputs, 3)).collect()
    }

    /// Returns cases with many tiles, blocks and tasks.
    pub fn large() -> Vec<Case> {
        let case = |kind: &str, settings: &str, [h, w, c]: [usize; 3], rows| {
            let settings = toml::de::ValueDeserializer::parse(settings).expect("the settings are valid TOML");
            let layer = layers::read(kind, settings).expect("the kind is a layer").expect("the settings are valid");
            Case::new(layer, vec![Activation::new(h, w, c)], rows)
        };
        vec![
            case("avg_pool", "{ kernel = 3, stride = 2, ceil = true }", [15, 15, 5], 9),
            case("batch_norm", "{}", [17, 9, 40], 30),
            case("conv", "{ filters = 16, kernel = 3, pad = 1 }", [20, 20, 8], 19),
            case("conv", "{ filters = 24, kernel = 1 }", [20, 20, 12], 19),
            case(
                "conv",
                "{ filters = 12, kernel = 5, pad = 2, stride = 2, groups = 3, bias = false }",
                [13, 17, 6],
                18,
            ),
            case("conv", "{ filters = 600, kernel = [3, 2], pad = 1 }", [5, 4, 200], 4),
            case("conv", "{ filters = 20, kernel = 5 }", [28, 28, 1], 17),
            // In bf16, with strides folded into channels.
            case("conv", "{ filters = 96, kernel = 11, stride = 4, pad = 2 }", [39, 43, 3], 8),
            case("conv", "{ filters = 8, kernel = 5, pad = 2, groups = 2 }", [9, 9, 96], 5),
            case("dense", "{ units = 300 }", [3, 3, 40], 200),
            case("dropout", "{ rate = 0.3 }", [7, 9, 31], 40),
            case("locally_connected", "{ filters = 72, kernel = 2, pad = [0, 1, 0, 1] }", [12, 11, 6], 70),
            case("lrn", "{ alpha = 0.5 }", [13, 13, 32], 7),
            case("max_pool", "{ kernel = 3, stride = 2 }", [15, 15, 5], 9),
            case("relu", "{}", [20, 20, 20], 9),
            case("tanh", "{}", [20, 20, 20], 9),
        ]
    }

    /// Returns the setup of one CPU device in training.
    pub fn setup(&self) -> Setup {
        Setup::of_rows(self.rows)
    }

    /// Lowers the layer and fills inputs, parameters and the output's gradient with numbers that do not depend on mesh
    /// and split. If products round their factors, all numbers are exact in bf16, hence also in tf32, and a reference
    /// run under the same `products` uses the same numbers.
    ///
    /// # Errors
    /// If the layer does not fit the setup.
    pub fn single<T: Scalar>(&self, setup: &Setup) -> Result<SingleLayer<'_, T>, Fault> {
        let mut single = SingleLayer::new(&*self.layer, &self.inputs, setup)?;
        fill(&mut single);
        if setup.products != MatmulPrecision::Full {
            round(&mut single);
        }
        Ok(single)
    }

    /// Runs the forward pass of the layer, and in training the backward pass, on the CPU or a GPU; returns its outputs
    /// and gradients.
    ///
    /// # Errors
    /// If the layer does not fit the setup, or the device reports an error.
    pub fn run<T: Scalar>(&self, setup: &Setup, driver: Option<&Driver>) -> Result<Vec<(Role, Vec<T>)>> {
        let mut single = self.single::<T>(setup).map_err(|fault| unfit(&fault))?;
        if let Some(driver) = driver {
            single = single.on(driver);
        }
        single.forward()?;
        if setup.mode == Mode::Train {
            single.backward()?;
        }
        let loss = is_loss(&single);
        let kept = |role: &Role| match role {
            Role::Y => !loss,
            Role::Metrics => loss,
            Role::Dx(_) | Role::DParam(_) | Role::Statistic(_) => setup.mode == Mode::Train,
            _ => false,
        };
        Ok(single.roles().into_iter().filter(kept).map(|role| (role, single.values(role).to_vec())).collect())
    }
}

/// The values of one operand.
pub type RoleValues = (Role, Vec<f32>);

/// Where the backward pass of a relu next to a layer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReluPass {
    /// Inside the layer's kernels.
    Inside,
    /// Beside them, which must give the same bits.
    Beside,
}

impl Case {
    /// Runs the layer in training on a GPU, with a relu next to it in its backward pass, and returns the gradients.
    /// `None` if its kernels cannot take that in.
    ///
    /// # Errors
    /// As for [`Case::run`].
    pub fn run_with_relu(&self, setup: &Setup, driver: &Driver, pass: ReluPass) -> Result<Option<Vec<RoleValues>>> {
        let setup = Setup { masks: pass == ReluPass::Inside, ..setup.clone() };
        let mut single = self.single::<f32>(&setup).map_err(|fault| unfit(&fault))?.on(driver);
        let mask = single.phases().backward.iter().find_map(|phase| phase.mask.as_ref().map(|(mask, _)| *mask));
        let Some(mask) = mask else { return Ok(None) };
        let hide = |single: &mut SingleLayer<f32>, output, gradient| {
            let y = single.values(output).to_vec();
            let hidden = single.values_mut(gradient).iter_mut().zip(y).filter(|(_, y)| *y <= 0.0);
            hidden.for_each(|(gradient, _)| *gradient = 0.0);
        };
        single.forward()?;
        if (pass, mask) == (ReluPass::Beside, ReluMask::After) {
            hide(&mut single, Role::Y, Role::Dy);
        }
        single.backward()?;
        if (pass, mask) == (ReluPass::Beside, ReluMask::Before) {
            hide(&mut single, Role::X(0), Role::Dx(0));
        }
        let gradients = single.roles().into_iter().filter(|role| matches!(role, Role::Dx(_) | Role::DParam(_)));
        Ok(Some(gradients.map(|role| (role, single.values(role).to_vec())).collect()))
    }
}

/// Returns true if the layer is a loss, whose result is in its metrics rather than in its output.
pub fn is_loss<T: Scalar>(single: &SingleLayer<T>) -> bool {
    single.phases().forward.iter().flat_map(|phase| &phase.operands).any(|o| o.role == Role::Metrics)
}

/// Fills the operands. Any two inputs differ by at least 4 / n and each differs from 0 by at least 2 / n, so small
/// changes cannot alter the choice of a maximum or of a relu. In every precision, values are exact in f32.
fn fill<T: Scalar>(single: &mut SingleLayer<T>) {
    let roles = single.roles();
    for (stream, role) in roles.into_iter().enumerate() {
        let random = Random::new(5, RandomStream::Probe, 0, stream as u64);
        let values = single.values_mut(role);
        let n = values.len();
        let order = random.permutation(n);
        for (i, v) in values.iter_mut().enumerate() {
            *v = T::from_f64(match role {
                Role::X(_) => f64::from(((f64::from(order[i]) + 0.5) * 4.0 / n as f64 - 2.0) as f32),
                Role::Param(_) | Role::Dy => f64::from(random.normal(i as u64) as f32),
                Role::Target => (i % 5) as f64,
                _ => continue,
            });
        }
    }
}

fn round<T: Scalar>(single: &mut SingleLayer<T>) {
    for role in single.roles() {
        if matches!(role, Role::X(_) | Role::Param(_) | Role::Dy) {
            let round = |v: &mut T| *v = T::from_f64(f64::from(bf16::from_f64(v.to_f64()).to_f32()));
            single.values_mut(role).iter_mut().for_each(round);
        }
    }
}

/// A precision in which layers run on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionCase {
    /// The name of the precision.
    pub name: &'static str,
    /// The precision to which factors of products and activations are rounded.
    pub products: MatmulPrecision,
    /// The largest error of activations and their gradients that passes, relative to the largest expected value.
    pub bound: f64,
    /// The largest error of everything else that passes.
    pub others: f64,
}

/// The bound for f32: in sums of up to some ten thousand terms of both signs, the error relative to the largest result
/// grows as the square root of the number of terms, times 6e-8.
pub const SINGLE: f64 = 2e-5;

/// The bound for bf16: rounding has a relative error of at most 2^-9, and lrn adds that of a sum that it also stores in
/// bf16.
pub const HALF: f64 = 1.0 / 256.0;

/// The precisions in which layers are checked; the CPU uses only the first. The numbers are exact in bf16, so tf32
/// rounds no factor and its products are as accurate as in f32.
pub(super) const PRECISIONS: &[PrecisionCase] = &[
    PrecisionCase { name: "f32", products: MatmulPrecision::Full, bound: SINGLE, others: SINGLE },
    PrecisionCase { name: "tf32", products: MatmulPrecision::Tf32, bound: SINGLE, others: SINGLE },
    PrecisionCase { name: "bf16", products: MatmulPrecision::Bf16, bound: HALF, others: SINGLE },
];

/// Runs every example of a kind of layer in both modes, on one device and under every split that it declares, and its
/// large cases on one device.
pub(super) fn check(kind: &str, precision: PrecisionCase, device: &Device, effort: Effort, tally: &mut Tally) {
    let of_kind = |case: &Case| case.layer.key() == kind;
    let examples = Case::examples().into_iter().filter(of_kind);
    for case in examples.take(if effort == Effort::Quick { 1 } else { usize::MAX }) {
        for mode in [Mode::Train, Mode::Eval] {
            check_case(&case, mode, &settings(&case, mode, effort), precision, device, tally);
        }
        check_relu(&case, precision, device, tally);
    }
    if effort == Effort::Whole {
        for case in Case::large().into_iter().filter(of_kind) {
            check_case(&case, Mode::Train, &[case.setup()], precision, device, tally);
            check_relu(&case, precision, device, tally);
        }
    }
}

fn check_case(
    case: &Case,
    mode: Mode,
    settings: &[Setup],
    precision: PrecisionCase,
    device: &Device,
    tally: &mut Tally,
) {
    if tally.lost {
        return;
    }
    let plain = Setup { mode, implementation: Implementation::Reference, products: precision.products, ..case.setup() };
    let expected = case.run::<f64>(&plain, None);
    for setup in settings {
        let setup = Setup { threads: device.threads, products: precision.products, ..setup.clone() };
        // A layer may reject a split that does not fit the mesh.
        if case.single::<f32>(&setup).is_err() {
            continue;
        }
        tally.run(&described(case, &setup), || {
            case.run::<f32>(&setup, device.driver.as_ref()).and_then(|got| match &expected {
                Ok(expected) => Ok(compare(&got, expected, precision)),
                Err(error) => Err(Error::Run(format!("the f64 reference fails: {error}"))),
            })
        });
    }
}

/// Checks that the backward pass of a relu has the same bits inside a GPU's kernels and beside them.
fn check_relu(case: &Case, precision: PrecisionCase, device: &Device, tally: &mut Tally) {
    let setup = Setup { products: precision.products, ..case.setup() };
    let has_mask = |single: SingleLayer<f32>| single.phases().backward.iter().any(|phase| phase.mask.is_some());
    let (Some(driver), Ok(true)) = (&device.driver, case.single(&setup).map(has_mask)) else { return };
    if tally.lost {
        return;
    }
    tally.run(&format!("{}, training with a relu next to it", case.name), || {
        let run = |pass| case.run_with_relu(&setup, driver, pass).map(Option::unwrap_or_default);
        let (inside, beside) = (run(ReluPass::Inside)?, run(ReluPass::Beside)?);
        let compared = |((role, inside), (_, beside)): (&RoleValues, &RoleValues)| Compared {
            role: format!("{role:?}"),
            difference: worst_bits(inside, beside),
            bound: 0.0,
        };
        Ok(inside.iter().zip(&beside).map(compared).collect())
    });
}

fn compare(got: &[(Role, Vec<f32>)], expected: &[(Role, Vec<f64>)], precision: PrecisionCase) -> Vec<Compared> {
    let mut all = Vec::new();
    for ((role, got), (_, expected)) in got.iter().zip(expected) {
        let bound = if matches!(role, Role::Y | Role::Dx(_)) { precision.bound } else { precision.others };
        all.push(Compared { role: format!("{role:?}"), difference: worst(got, expected), bound });
    }
    all
}

/// Returns the setups: one device, then on every mesh each declared split and, without a split, each layout of the
/// input.
fn settings(case: &Case, mode: Mode, effort: Effort) -> Vec<Setup> {
    let one = Setup { mode, ..case.setup() };
    let mut all = vec![one.clone()];
    let meshes: &[(usize, usize)] = if effort == Effort::Quick { &[(2, 2)] } else { &[(1, 2), (2, 1), (2, 2)] };
    let declared = case.layer.splits().iter().map(|&split| (Some(split), Placement::Replicate));
    let places = [Placement::Replicate, Placement::Shard(Dim::BATCH), Placement::Shard(Dim::CHANNELS)]
        .map(|place| (None, place));
    let places = if effort == Effort::Quick { &places[2..] } else { &places[..] };
    let splits: Vec<(Option<Split>, Placement)> = declared.chain(places.iter().copied()).collect();
    for &(data, columns) in meshes {
        let mesh = Mesh { data, columns };
        let on = |&(split, incoming): &(Option<Split>, Placement)| Setup { mesh, split, incoming, ..one.clone() };
        all.extend(splits.iter().map(on));
    }
    all
}

fn described(case: &Case, setup: &Setup) -> String {
    let mode = if setup.mode == Mode::Train { "training" } else { "evaluation" };
    if setup.mesh.devices() == 1 {
        return format!("{}, {mode} on one device", case.name);
    }
    let split = match setup.split {
        Some(split) => format!("split {split}"),
        None => format!("no split from {:?}", setup.incoming),
    };
    format!("{}, {mode} on {}, {split}", case.name, setup.mesh)
}
