//! Locally connected layer: a convolution with filters of their own at each position of the output. y[n, i, j, o] = b[i, j, o] +
//! sum over a, b, c of x[n, i s - p + a, j s - p + b, c] w[o, i, j, a, b, c] (LeCun 1989, <http://yann.lecun.com/exdb/publis/pdf/lecun-89.pdf>;
//! `local` of cuda-convnet; Taigman et al. 2014, <https://doi.org/10.1109/CVPR.2014.220>).
//!
//! x: (N, H, W, I); y: (N, OH, OW, O), of the size that `conv` has; weight: (O, OH * OW, KH * KW, I) in memory, (O, OH, OW, I, KH, KW)
//! in files, where [:, i, j] is the weight of PyTorch's `Conv2d` for position (i, j); bias: (O, OH * OW) in memory, (O, OH, OW) in files.
//! The initial values `orthogonal` take all filters of output o, one at each position, as one row.
//!
//! Splits: `columns` shards the filters, `rows` the input channels (y is partial and the bias is added only once), `batch` the
//! samples, and `none` nothing.

mod fast;
mod launch;
mod local;
mod plain;

use super::dense::{Bias, preferred_weighted, weighted_phases};
use super::window::{Padding, Pair, WindowGeometry};
use crate::cpu::Implementation;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::layers::layer::unknown_phase;
use crate::layers::{
    Activation, Args, Init, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Role, Split, by_precision,
};
use crate::settings::{AT_LEAST_ONE, Settings, settings};
use crate::tensor::{Mesh, Placement, Shape};
use local::LocalPart;

settings! {
    /// The `locally_connected` layer.
    pub struct LocallyConnected {
        /// Number of outputs O at each position.
        pub filters: usize, in AT_LEAST_ONE, example "16";
        /// Size of the filters, at least 1.
        pub kernel: Pair, example "3";
        /// Step between windows, at least 1.
        pub stride: Pair = Pair::both(1);
        /// Rows and columns of zeros on each side; with `same`, so many that the output is as large as the input divided by
        /// the stride, rounded up, with an odd one below or to the right.
        pub pad: Padding = Padding::both(Pair::both(0));
        /// Initial bias: a number, `true` for 0, or `false` for no bias.
        pub bias: Bias = Bias::default();
    }
}

impl LocallyConnected {
    /// Returns the windows over an image of a size.
    fn window(&self, image: Pair) -> WindowGeometry {
        let LocallyConnected { kernel, stride, .. } = *self;
        let [pad, after] = self.pad.around(image, kernel, stride);
        WindowGeometry { kernel, stride, pad, after, dilation: Pair::both(1), ceil: false }
    }

    fn part(&self, operands: &Operands) -> LocalPart {
        let (x, w) = (&operands[Role::X(0)], &operands[Role::WEIGHT]);
        let y = operands.get(Role::Y).unwrap_or_else(|| &operands[Role::Dy]);
        let has_bias = self.bias.value().is_some();
        LocalPart {
            window: self.window(Pair { h: x.len(1), w: x.len(2) }),
            n: x.len(0),
            h: x.len(1),
            w: x.len(2),
            c: x.len(3),
            oh: y.len(1),
            ow: y.len(2),
            o: w.len(0),
            has_bias,
            adds_bias: has_bias && w.start(3) == 0 && w.len(3) > 0,
        }
    }
}

impl Layer for LocallyConnected {
    fn key(&self) -> &'static str {
        "locally_connected"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        self.window(Pair::both(1)).check()
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        self.window(Pair { h: inputs[0].h, w: inputs[0].w }).output(self.key(), inputs[0], self.filters)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let y = self.output(inputs).expect("the output was computed from these inputs");
        let (filters, Pair { h, w }, depth) = (self.filters, self.kernel, inputs[0].c);
        let weight = Param {
            name: "weight",
            shape: Shape::from([filters, y.h * y.w, h * w, depth]),
            file_shape: Shape::from([filters, y.h, y.w, depth, h, w]),
            file_order: vec![0, 1, 3, 2],
            fan_in: h * w * depth,
            fan_out: h * w * filters,
            init: None,
        };
        let bias = self.bias.value().map(|value| Param {
            name: "bias",
            shape: Shape::from([filters, y.h * y.w]),
            file_shape: Shape::from([filters, y.h, y.w]),
            file_order: vec![0, 1],
            init: Some(Init::constant(value)),
            ..weight.clone()
        });
        [weight].into_iter().chain(bias).collect()
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        let y = self.output(inputs).map_or(0, Activation::features);
        let products = [y, self.kernel.h, self.kernel.w, inputs[0].c];
        products.into_iter().fold(2, |cost, factor| cost.saturating_mul(factor as u64))
    }
    fn splits(&self) -> &'static [Split] {
        &[Split::Columns, Split::Rows, Split::Batch, Split::None]
    }
    fn preferred_input(&self, _: Activation, _: Placement, split: Option<Split>, _: Mesh) -> Option<Placement> {
        preferred_weighted(split)
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let columns = cx.mesh.columns;
        if cx.split == Split::Columns && !self.filters.is_multiple_of(columns) {
            let fit = self.filters.div_ceil(columns) * columns;
            return Err(Fault::at(
                "filters",
                format!(
                    "filters = {} does not divide by {columns} devices (split = \"columns\"); use {fit} or \
                     split = \"batch\"",
                    self.filters
                ),
            ));
        }
        Ok(weighted_phases(cx, self.bias.value().is_some(), false))
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let Target::Cpu { threads } = target else { return 0 };
        let part = self.part(shapes);
        let tiles = threads * part.samples() * part.filter();
        match phase {
            "forward" => tiles,
            "backward" => part.biases() + tiles,
            _ => unknown_phase(phase),
        }
    }
    fn run(&self, phase: &str, args: &Args) {
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
        let part = self.part(launch.operands);
        match phase {
            "forward" => launch::forward(&part, launch),
            "backward" => launch::backward(&part, launch),
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let layer = |filters, kernel, stride, pad| LocallyConnected {
            filters,
            kernel,
            stride: Pair::both(stride),
            pad,
            bias: Bias::Value(0.5),
        };
        let (square, sides) = (Pair::both, |before, after| Padding::Given(before, after));
        vec![
            (layer(8, square(3), 2, Padding::both(square(1))), vec![Activation::new(5, 4, 4)]),
            (layer(4, square(3), 2, Padding::Same), vec![Activation::new(4, 3, 4)]),
            (
                LocallyConnected {
                    bias: Bias::Switch(false),
                    ..layer(4, Pair { h: 2, w: 1 }, 1, sides(Pair { h: 0, w: 1 }, Pair { h: 1, w: 0 }))
                },
                vec![Activation::new(2, 2, 12)],
            ),
            (layer(12, square(2), 3, sides(square(0), square(0))), vec![Activation::new(5, 3, 8)]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    fn layer(filters: usize, bias: Bias) -> LocallyConnected {
        let [kernel, one] = [2, 1].map(Pair::both);
        LocallyConnected { filters, kernel, stride: one, pad: Padding::both(Pair::both(0)), bias }
    }

    #[test]
    fn known_values() {
        for implementation in [Implementation::Fast, Implementation::Reference] {
            let setup = Setup { implementation, ..Setup::of_rows(1) };
            let layer = layer(1, Bias::Value(0.0));
            let mut local = SingleLayer::<f64>::new(&layer, &[Activation::new(2, 3, 1)], &setup).unwrap();
            local.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            // The second position has the filter of the first, turned by 180 degrees.
            let filters = [1.0, 10.0, 100.0, 1000.0, 1000.0, 100.0, 10.0, 1.0];
            local.values_mut(Role::WEIGHT).copy_from_slice(&filters);
            local.values_mut(Role::BIAS).copy_from_slice(&[0.5, 0.25]);
            local.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0]);
            local.forward().unwrap();
            local.backward().unwrap();
            assert_eq!(local.values(Role::Y), [5421.5, 2356.25]);
            assert_eq!(local.values(Role::Dx(0)), [1.0, 2010.0, 200.0, 100.0, 1020.0, 2.0]);
            assert_eq!(local.values(Role::D_WEIGHT), [1.0, 2.0, 4.0, 5.0, 4.0, 6.0, 10.0, 12.0]);
            assert_eq!(local.values(Role::D_BIAS), [1.0, 2.0]);
        }
    }

    #[test]
    fn every_position_has_its_own_filters_and_biases() {
        let params = layer(3, Bias::Value(1.0)).params(&[Activation::new(4, 6, 5)]);
        assert_eq!((&params[0].shape, &params[0].file_shape), (&[3, 15, 4, 5].into(), &[3, 3, 5, 5, 2, 2].into()));
        assert_eq!((params[0].fan_in, params[0].fan_out), (20, 12));
        assert_eq!((&params[1].shape, &params[1].file_shape), (&[3, 15].into(), &[3, 3, 5].into()));
        assert_eq!(params[1].init, Some(Init::constant(1.0)));
        assert_eq!(layer(3, Bias::Switch(false)).params(&[Activation::new(4, 6, 5)]).len(), 1);
    }

    #[test]
    fn many_samples_are_computed_in_tiles() {
        let layer = layer(2, Bias::Value(0.0));
        let run = |implementation| {
            let setup = Setup { implementation, threads: 2, ..Setup::of_rows(local::MOST_SAMPLES + 3) };
            let mut local = SingleLayer::<f64>::new(&layer, &[Activation::new(2, 3, 1)], &setup).unwrap();
            for (role, step) in [(Role::X(0), 7), (Role::WEIGHT, 5), (Role::BIAS, 3), (Role::Dy, 11)] {
                let values = local.values_mut(role).iter_mut().enumerate();
                values.for_each(|(i, value)| *value = (i * step % 13) as f64 - 6.0);
            }
            local.forward().unwrap();
            local.backward().unwrap();
            [Role::Y, Role::Dx(0), Role::D_WEIGHT, Role::D_BIAS].map(|role| local.values(role).to_vec())
        };
        // Sums of whole numbers are exact in every order.
        assert_eq!(run(Implementation::Fast), run(Implementation::Reference));
    }

    #[test]
    fn mistakes_are_named() {
        let flat = [Activation { flat: true, ..Activation::new(2, 2, 8) }];
        let fault = layer(4, Bias::default()).output(&flat).unwrap_err();
        assert!(fault.message.starts_with("locally_connected needs images"), "{}", fault.message);
        let kernel = LocallyConnected { kernel: Pair { h: 2, w: 0 }, ..layer(4, Bias::default()) };
        assert_eq!(kernel.check().unwrap_err().message, "kernel = [2, 0], expected at least 1");
        let fault = layer(4, Bias::default()).output(&[Activation::new(1, 4, 3)]).unwrap_err();
        assert!(fault.message.starts_with("kernel = 2 is larger than its input 1x4x3"), "{}", fault.message);
        let two = Setup { mesh: Mesh { data: 1, columns: 2 }, split: Some(Split::Columns), ..Setup::default() };
        let odd = layer(3, Bias::default());
        let fault = SingleLayer::<f32>::new(&odd, &[Activation::new(4, 4, 6)], &two).unwrap_err();
        let expected = "filters = 3 does not divide by 2 devices (split = \"columns\"); use 4 or split = \"batch\"";
        assert_eq!(fault.message, expected);
    }
}
