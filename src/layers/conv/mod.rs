//! Convolution: y[n, i, j, o] = b[o] + sum over a, b, c of x[n, i s - p + a, j s - p + b, c] w[o, a, b, c] (LeCun et
//! al. 1998, <https://doi.org/10.1109/5.726791>; groups as in Krizhevsky et al. 2012,
//! <https://doi.org/10.1145/3065386>).
//!
//! x: (N, H, W, I); weight: (O, KH, KW, I / groups) in memory, (O, I / groups, KH, KW) in files; bias: (O);
//! y: (N, floor((H + 2 p - K) / s) + 1, likewise for W, O), where 2 p is the padding before and after the image. With a dilation d (Yu and
//! Koltun 2016, <https://arxiv.org/abs/1511.07122>), a and b are multiplied by d, and K is (K - 1) d + 1. With groups, output o depends only on the channels of
//! group o / (O / groups).
//!
//! Splits: `columns` shards the filters; if `groups` is a multiple of the number of columns, each column needs only
//! its own input channels, otherwise all of them. `rows` shards the input channels (y is partial and the bias is added
//! only once) and requires groups = 1. `batch` shards the samples, and `none` nothing.

mod depthwise;
mod dilated;
mod fast;
mod fold;
mod launch;
mod local;
mod plain;
mod windows;

use super::dense::{Bias, preferred_weighted, weighted_phases};
use super::reparam::{self, Reparam};
use super::window::{Padding, Pair, WindowGeometry};
use crate::cpu::Implementation;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::layers::layer::unknown_phase;
use crate::layers::{
    Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Role, Split, by_precision,
};
use crate::settings::{AT_LEAST_ONE, Settings, settings};
use crate::tensor::{Dim, Mesh, Placement, Shape};
use local::LocalConv;

settings! {
    /// The `conv` layer.
    pub struct Conv {
        /// Number of outputs O, a multiple of `groups`.
        pub filters: usize, in AT_LEAST_ONE, example "64";
        /// Size of the filters, at least 1.
        pub kernel: Pair, example "3";
        /// Step between windows, at least 1.
        pub stride: Pair = Pair::both(1);
        /// Rows and columns of zeros on each side; with `same`, so many that the output is as large as the input divided by
        /// the stride, rounded up, with an odd one below or to the right.
        pub pad: Padding = Padding::both(Pair::both(0));
        /// Step between the positions of a filter on the image, at least 1.
        pub dilation: Pair = Pair::both(1);
        /// Number of groups of channels, a divisor of the input channels.
        pub groups: usize = 1, in AT_LEAST_ONE;
        /// Initial bias: a number, `true` for 0, or `false` for no bias.
        pub bias: Bias = Bias::default();
        /// How the weight follows from other parameters: w = g v / |v| for each output, where g starts as `gain`, or as |v|.
        pub reparam: Option<Reparam> = None;
    }
}

impl Conv {
    /// Returns the windows over an image of a size.
    fn window(&self, image: Pair) -> WindowGeometry {
        let Conv { kernel, stride, dilation, .. } = *self;
        let none = Pair::both(0);
        let window = WindowGeometry { kernel, stride, pad: none, after: none, dilation, ceil: false };
        let [pad, after] = self.pad.around(image, window.extent(), stride);
        WindowGeometry { pad, after, ..window }
    }

    fn has_bias(&self) -> bool {
        self.bias.value().is_some()
    }

    /// Returns true if each column needs only its own channels of the input.
    fn is_aligned(&self, mesh: Mesh) -> bool {
        self.groups.is_multiple_of(mesh.columns)
    }
}

impl Layer for Conv {
    fn key(&self) -> &'static str {
        "conv"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        reparam::check(self.reparam.as_ref())?;
        if !self.filters.is_multiple_of(self.groups) {
            let (filters, groups) = (self.filters, self.groups);
            let fit = filters.div_ceil(groups) * groups;
            let message = format!("filters = {filters} is not a multiple of groups = {groups}; use {fit}");
            return Err(Fault::at("filters", message));
        }
        self.window(Pair::both(1)).check()
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let y = self.window(Pair { h: inputs[0].h, w: inputs[0].w }).output(self.key(), inputs[0], self.filters)?;
        if !inputs[0].c.is_multiple_of(self.groups) {
            let message = format!("groups = {} does not divide the {} channels of its input", self.groups, inputs[0].c);
            return Err(Fault::at("groups", message));
        }
        Ok(y)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let (kernel, inputs) = (self.kernel, inputs[0].c / self.groups);
        let weight = Param {
            name: "weight",
            shape: Shape::from([self.filters, kernel.h, kernel.w, inputs]),
            file_shape: Shape::from([self.filters, inputs, kernel.h, kernel.w]),
            file_order: vec![0, 3, 1, 2],
            fan_in: kernel.h * kernel.w * inputs,
            fan_out: kernel.h * kernel.w * self.filters / self.groups,
            init: None,
        };
        let bias = self.bias.value().map(|value| Param::vector("bias", self.filters, value));
        reparam::params(self.reparam.as_ref(), [weight].into_iter().chain(bias).collect())
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        let y = self.output(inputs).map_or(0, Activation::features);
        let products = [y, self.kernel.h, self.kernel.w, inputs[0].c / self.groups];
        products.into_iter().fold(2, |cost, factor| cost.saturating_mul(factor as u64))
    }
    fn splits(&self) -> &'static [Split] {
        &[Split::Columns, Split::Rows, Split::Batch, Split::None]
    }
    fn preferred_input(&self, _: Activation, _: Placement, split: Option<Split>, mesh: Mesh) -> Option<Placement> {
        match split.unwrap_or(Split::Columns) {
            Split::Columns if self.is_aligned(mesh) => Some(Placement::Shard(Dim::CHANNELS)),
            split => preferred_weighted(Some(split)),
        }
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let columns = cx.mesh.columns;
        if cx.split == Split::Columns && !self.filters.is_multiple_of(columns) {
            let fits = |n: &usize| n.is_multiple_of(columns) && n.is_multiple_of(self.groups);
            let fit = (self.filters..).find(fits).expect("columns * groups has larger multiples");
            return Err(Fault::at(
                "filters",
                format!(
                    "filters = {} does not divide by {columns} devices (split = \"columns\"); use {fit} or \
                     split = \"batch\"",
                    self.filters
                ),
            ));
        }
        if cx.split == Split::Rows && self.groups > 1 {
            return Err(Fault::at(
                "groups",
                format!(
                    "groups = {} cannot be split by \"rows\", which shards the input channels of every filter; use \
                     split = \"columns\" or \"batch\"",
                    self.groups
                ),
            ));
        }
        let phases = weighted_phases(cx, self.has_bias(), cx.split == Split::Columns && self.is_aligned(cx.mesh));
        Ok(reparam::phases(self.reparam.as_ref(), phases, cx, self.params(cx.inputs)[0].shape.clone()))
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        if reparam::has(phase) {
            return 0;
        }
        let part = self.part(shapes);
        match (phase, target) {
            ("forward", Target::Cpu { threads }) => fast::forward_scratch(&part, threads),
            ("backward", Target::Cpu { threads }) => fast::backward_scratch(&part, threads),
            (_, Target::Gpu { libraries, .. }) => launch::scratch(&part, phase, shapes[Role::X(0)].element, libraries),
            _ => unknown_phase(phase),
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        if reparam::has(phase) {
            return reparam::run(phase, args);
        }
        let part = self.part(args.operands);
        by_precision!(args, T => match (phase, args.implementation) {
            ("forward", Implementation::Fast) => fast::forward::<T>(&part, args),
            ("forward", Implementation::Reference) => plain::forward::<T>(&part, args),
            ("backward", Implementation::Fast) => fast::backward::<T>(&part, args),
            ("backward", Implementation::Reference) => plain::backward::<T>(&part, args),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        if reparam::has(phase) {
            return reparam::launch(phase, launch);
        }
        let part = self.part(launch.operands);
        match phase {
            "forward" => launch::forward(&part, launch),
            "backward" => launch::backward(&part, launch),
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let conv = |filters, kernel, stride, pad, groups, bias| Conv {
            filters,
            kernel,
            stride: Pair::both(stride),
            pad: Padding::both(Pair::both(pad)),
            dilation: Pair::both(1),
            groups,
            bias,
            reparam: None,
        };
        let (square, on) = (Pair::both, Bias::Value(0.5));
        vec![
            (conv(8, square(3), 1, 1, 1, on), vec![Activation::new(5, 4, 4)]),
            (conv(4, square(1), 1, 0, 1, on), vec![Activation::new(3, 3, 6)]),
            (conv(8, square(3), 2, 1, 2, Bias::Switch(false)), vec![Activation::new(6, 7, 4)]),
            (conv(12, Pair { h: 2, w: 3 }, 1, 2, 3, on), vec![Activation::new(4, 3, 6)]),
            (conv(8, square(3), 2, 1, 4, on), vec![Activation::new(5, 6, 4)]),
            (conv(8, square(5), 3, 0, 4, on), vec![Activation::new(9, 8, 4)]),
            (Conv { dilation: Pair { h: 2, w: 3 }, ..conv(4, square(3), 2, 2, 2, on) }, vec![Activation::new(6, 9, 4)]),
            (Conv { dilation: square(2), ..conv(6, square(3), 1, 1, 6, on) }, vec![Activation::new(5, 4, 6)]),
            (
                Conv { reparam: Some(Reparam::WEIGHT_NORM), ..conv(8, square(3), 2, 1, 2, on) },
                vec![Activation::new(4, 5, 4)],
            ),
            (
                Conv { reparam: Some(Reparam::WEIGHT_NORM), ..conv(4, square(2), 1, 0, 1, Bias::Switch(false)) },
                vec![Activation::new(3, 4, 4)],
            ),
            (Conv { pad: Padding::Same, ..conv(4, square(3), 2, 0, 1, on) }, vec![Activation::new(6, 5, 4)]),
            (
                Conv {
                    pad: Padding::Given(Pair { h: 0, w: 2 }, Pair { h: 1, w: 0 }),
                    ..conv(4, square(1), 1, 0, 1, on)
                },
                vec![Activation::new(3, 2, 6)],
            ),
        ]
    }
}

impl Conv {
    fn part(&self, operands: &Operands) -> LocalConv {
        let (x, w) = (&operands[Role::X(0)], &operands[Role::WEIGHT]);
        let y = operands.get(Role::Y).unwrap_or_else(|| &operands[Role::Dy]);
        LocalConv {
            window: self.window(Pair { h: x.len(1), w: x.len(2) }),
            n: x.len(0),
            h: x.len(1),
            w: x.len(2),
            c: x.len(3),
            oh: y.len(1),
            ow: y.len(2),
            o: w.len(0),
            depth: w.len(3),
            first: w.start(0),
            group_outputs: w.shape.0[0] / self.groups,
            group_depth: w.shape.0[3],
            offset: x.start(3) - w.start(3),
            has_bias: self.has_bias(),
            adds_bias: self.has_bias() && w.start(3) == 0 && w.len(3) > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Init, Setup, SingleLayer};

    fn conv(filters: usize, groups: usize, pad: usize) -> Conv {
        let both = Pair::both;
        Conv {
            filters,
            kernel: both(2),
            stride: both(1),
            pad: Padding::both(both(pad)),
            dilation: both(1),
            groups,
            bias: Bias::Value(0.0),
            reparam: None,
        }
    }

    #[test]
    fn known_values() {
        for implementation in [Implementation::Fast, Implementation::Reference] {
            let (layer, setup) = (conv(1, 1, 0), Setup { batch: 1, implementation, ..Setup::default() });
            let mut conv = SingleLayer::<f64>::new(&layer, &[Activation::new(2, 3, 1)], &setup).unwrap();
            conv.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            conv.values_mut(Role::Param(0)).copy_from_slice(&[1.0, 10.0, 100.0, 1000.0]);
            conv.values_mut(Role::Param(1)).fill(0.5);
            conv.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0]);
            conv.forward().unwrap();
            conv.backward().unwrap();
            assert_eq!(conv.values(Role::Y), [5421.5, 6532.5]);
            assert_eq!(conv.values(Role::Dx(0)), [1.0, 12.0, 20.0, 100.0, 1200.0, 2000.0]);
            assert_eq!(conv.values(Role::DParam(0)), [5.0, 8.0, 14.0, 17.0]);
            assert_eq!(conv.values(Role::DParam(1)), [3.0]);
        }
    }

    #[test]
    fn the_bias_starts_at_the_value_in_the_file() {
        use serde::Deserialize;
        let layer = Conv::deserialize(
            toml::de::ValueDeserializer::parse("{ filters = 2, kernel = [1, 3], bias = 1.0 }").unwrap(),
        );
        let params = layer.unwrap().params(&[Activation::new(4, 4, 3)]);
        assert_eq!((&params[0].shape, &params[0].file_shape), (&[2, 1, 3, 3].into(), &[2, 3, 1, 3].into()));
        assert_eq!(params[1].init, Some(Init::constant(1.0)));
    }

    #[test]
    fn mistakes_are_named() {
        let input = [Activation { flat: true, ..Activation::new(2, 2, 8) }];
        let fault = conv(4, 1, 0).output(&input).unwrap_err();
        assert!(fault.message.contains("flat vector of 32 features; put it before flatten"), "{}", fault.message);
        assert_eq!(conv(6, 4, 0).check().unwrap_err().message, "filters = 6 is not a multiple of groups = 4; use 8");
        let two = Setup { mesh: Mesh { data: 1, columns: 2 }, ..Setup::default() };
        let fault = |conv: Conv, split| {
            let setup = Setup { split: Some(split), ..two.clone() };
            SingleLayer::<f32>::new(&conv, &[Activation::new(4, 4, 6)], &setup).unwrap_err().message
        };
        assert!(fault(conv(3, 3, 0), Split::Columns).ends_with("use 6 or split = \"batch\""));
        assert!(fault(conv(4, 2, 0), Split::Rows).starts_with("groups = 2 cannot be split by \"rows\""));
    }
}
