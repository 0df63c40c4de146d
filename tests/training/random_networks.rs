//! Random networks on random meshes under random splits: the loss, every gradient, every running statistic and the
//! evaluation match those of the same network on one device, and running on queues gives the bits of running one
//! instruction after another.

use crate::common::outcome::{Outcome, Where};
use peristyle::collectives::CollectiveAlgorithm;
use peristyle::error::Problem;
use peristyle::layers::{Access, Mode, Pass};
use peristyle::network::{Network, Source};
use peristyle::optim::Chain;
use peristyle::placement::{Op, Spec, Variant, place, resolve};
use peristyle::program::Execution;
use peristyle::tensor::{Dim, Mesh, Placement, Precision};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// 1e-16 per operation, for some ten thousand operations, amplified by a few layers.
const TOLERANCE: f64 = 1e-9;

const MESHES: [(usize, usize); 10] = [(1, 2), (2, 2), (1, 3), (2, 1), (4, 1), (1, 4), (3, 1), (2, 3), (3, 2), (1, 6)];

/// The shape of a tensor between layers of a drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    h: usize,
    w: usize,
    c: usize,
    flat: bool,
}

/// A network that is drawn from a list of numbers. A shorter list and smaller numbers make a simpler network, so that
/// proptest can shrink a failure.
struct Drawing<'a> {
    numbers: std::slice::Iter<'a, u16>,
    columns: usize,
    text: String,
    /// The name and output of every layer, after those of the images.
    outputs: Vec<(String, Shape)>,
}

impl Drawing<'_> {
    fn next(&mut self, n: usize) -> usize {
        self.numbers.next().map_or(0, |&v| usize::from(v) % n)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(from.len())]
    }

    /// Draws a number of channels, mostly a multiple of the columns.
    fn channels(&mut self) -> usize {
        if self.next(16) == 15 { self.pick(&[5, 7]) } else { self.columns * self.pick(&[2, 4, 1]) }
    }

    fn weighted_split(&mut self) -> &'static str {
        self.pick(&["", "rows", "columns", "batch", "none", "rows", ""])
    }

    fn split(&mut self) -> &'static str {
        self.pick(&["", "", "", "batch", "columns", "none"])
    }

    /// Adds a layer and returns its number.
    fn layer(&mut self, inputs: &[usize], settings: &str, split: &str, output: Shape) -> usize {
        let name = format!("l{}", self.outputs.len());
        let inputs: Vec<String> = inputs.iter().map(|&i| format!("\"{}\"", self.outputs[i].0)).collect();
        let split = if split.is_empty() { String::new() } else { format!(", split = \"{split}\"") };
        let inputs = inputs.join(", ");
        writeln!(self.text, "  {{ name = \"{name}\", {settings}{split}, inputs = [{inputs}] }},").unwrap();
        self.outputs.push((name, output));
        self.outputs.len() - 1
    }

    fn shape(&self, of: usize) -> Shape {
        self.outputs[of].1
    }

    fn conv(&mut self, x: usize) -> usize {
        let s = self.shape(x);
        let filters = self.channels();
        let fits = |g: &usize| s.c.is_multiple_of(*g) && filters.is_multiple_of(*g);
        let groups: Vec<usize> = [1, self.columns, 1, 2 * self.columns, 2].into_iter().filter(fits).collect();
        let groups = self.pick(&groups);
        let (kernel, pad, stride) = self.pick(&[(1, 0, 1), (3, 1, 1), (3, 1, 2), (2, 0, 1), (2, 1, 2), (1, 0, 2)]);
        let out = |n: usize| (n + 2 * pad).checked_sub(kernel).map_or(0, |n| n / stride + 1);
        let output = Shape { h: out(s.h), w: out(s.w), c: filters, flat: false };
        if s.flat || output.h == 0 || output.w == 0 {
            return self.dense(x);
        }
        let bias = self.pick(&["0.1", "false"]);
        let split = self.weighted_split();
        let settings = format!(
            "conv = {{ filters = {filters}, kernel = {kernel}, pad = {pad}, stride = {stride}, groups = {groups}, \
             bias = {bias} }}"
        );
        self.layer(&[x], &settings, split, output)
    }

    fn dense(&mut self, x: usize) -> usize {
        let units = self.channels();
        let split = self.weighted_split();
        self.dense_of(x, units, split)
    }

    fn dense_of(&mut self, x: usize, units: usize, split: &str) -> usize {
        let output = Shape { h: 1, w: 1, c: units, flat: false };
        self.layer(&[x], &format!("dense = {{ units = {units} }}"), split, output)
    }

    fn pool(&mut self, x: usize) -> usize {
        let s = self.shape(x);
        let kind = self.pick(&["max_pool", "avg_pool"]);
        let (kernel, pad, stride) = self.pick(&[(2, 0, 2), (3, 1, 2), (2, 0, 1), (3, 0, 2)]);
        if s.flat || s.h < kernel || s.w < kernel {
            return self.simple(x);
        }
        let out = |n: usize| (n + 2 * pad - kernel) / stride + 1;
        let split = self.split();
        let settings = format!("{kind} = {{ kernel = {kernel}, stride = {stride}, pad = {pad} }}");
        self.layer(&[x], &settings, split, Shape { h: out(s.h), w: out(s.w), ..s })
    }

    /// Adds a layer that keeps the shape.
    fn simple(&mut self, x: usize) -> usize {
        let s = self.shape(x);
        let fits = |g: &usize| s.c.is_multiple_of(*g);
        let groups: Vec<usize> = [1, self.columns, 2 * self.columns].into_iter().filter(fits).collect();
        let settings = match self.next(7) {
            0 => "relu = {}".to_string(),
            1 => "tanh = {}".to_string(),
            2 => "sigmoid = {}".to_string(),
            3 => "dropout = { rate = 0.4 }".to_string(),
            4 => format!("batch_norm = {{ affine = {} }}", self.pick(&[true, false])),
            _ if s.flat => "relu = {}".to_string(),
            _ => format!("lrn = {{ size = 3, alpha = 0.5, groups = {} }}", self.pick(&groups)),
        };
        let split = if settings.starts_with("dropout") { "" } else { self.split() };
        self.layer(&[x], &settings, split, s)
    }

    fn flatten(&mut self, x: usize) -> usize {
        let s = self.shape(x);
        self.layer(&[x], "flatten = {}", "", Shape { flat: true, ..s })
    }

    fn global_avg_pool(&mut self, x: usize) -> usize {
        let s = self.shape(x);
        if s.flat {
            return self.simple(x);
        }
        let split = self.split();
        self.layer(&[x], "global_avg_pool = {}", split, Shape { h: 1, w: 1, ..s })
    }

    /// Adds two or three branches from one layer and joins them.
    fn join(&mut self, x: usize) -> usize {
        let s = self.shape(x);
        let count = 2 + self.next(2);
        let image = !s.flat && s.h * s.w > 1;
        let c = if self.next(2) == 0 { s.c } else { self.channels() };
        let mut ends = Vec::new();
        for _ in 0..count {
            let kind = self.next(4);
            let split = self.weighted_split();
            let end = if image {
                let settings = |kernel, pad| format!("conv = {{ filters = {c}, kernel = {kernel}, pad = {pad} }}");
                let output = Shape { c, ..s };
                match kind {
                    0 if c == s.c && !ends.contains(&x) => x,
                    1 if c == s.c => self.simple(x),
                    0 | 1 => self.layer(&[x], &settings(1, 0), split, output),
                    2 => {
                        let before = self.simple(x);
                        self.layer(&[before], &settings(3, 1), split, output)
                    }
                    _ => {
                        let conv = self.layer(&[x], &settings(3, 1), split, output);
                        self.simple(conv)
                    }
                }
            } else {
                match kind {
                    0 => self.dense_of(x, c, split),
                    1 => {
                        let before = self.simple(x);
                        self.dense_of(before, c, split)
                    }
                    2 => {
                        let view = self.flatten(x);
                        self.dense_of(view, c, split)
                    }
                    _ => {
                        let dense = self.dense_of(x, c, split);
                        self.simple(dense)
                    }
                }
            };
            ends.push(end);
        }
        let (split, output) = (self.split(), self.shape(ends[0]));
        self.layer(&ends, "add = {}", split, output)
    }

    /// Adds two heads to an image: a dense layer on its flattened values, and one on its means.
    fn heads(&mut self, x: usize) -> usize {
        if self.shape(x).flat {
            return self.join(x);
        }
        let c = self.channels();
        let splits = [self.weighted_split(), self.weighted_split()];
        let (flat, mean) = (self.flatten(x), self.global_avg_pool(x));
        let (a, b) = (self.dense_of(flat, c, splits[0]), self.dense_of(mean, c, splits[1]));
        let (split, output) = (self.split(), self.shape(a));
        self.layer(&[a, b], "add = {}", split, output)
    }
}

/// Draws a network's configuration, and how it is run.
fn draw(numbers: &[u16]) -> (String, Where) {
    let mut drawing = Drawing { numbers: numbers.iter(), columns: 1, text: String::new(), outputs: Vec::new() };
    let (data, columns) = drawing.pick(&MESHES);
    let (algorithm, staged) = drawing.pick(&[
        (CollectiveAlgorithm::OnePass, false),
        (CollectiveAlgorithm::Ring, false),
        (CollectiveAlgorithm::Ring, true),
    ]);
    let at = Where { mesh: Mesh { data, columns }, algorithm, staged, rows: drawing.pick(&[4, 1, 2, 3, 5, 6, 7]) };
    drawing.columns = columns;
    let input = Shape { h: drawing.pick(&[3, 4, 1]), w: drawing.pick(&[3, 4]), c: drawing.channels(), flat: false };
    drawing.outputs.push(("images".to_string(), input));
    let mut x = if drawing.next(3) < 2 { drawing.conv(0) } else { drawing.dense(0) };
    for _ in 0..1 + drawing.next(5) {
        x = match drawing.next(11) {
            0 => drawing.simple(x),
            1 => drawing.dense(x),
            2 | 3 => drawing.conv(x),
            4 => drawing.pool(x),
            5 => drawing.simple(x),
            6 => drawing.flatten(x),
            7 => drawing.global_avg_pool(x),
            8 => drawing.heads(x),
            _ => drawing.join(x),
        };
    }
    let (classes, split) = (columns * drawing.pick(&[2, 4]), drawing.weighted_split());
    if classes > 1 {
        drawing.dense_of(x, classes.max(2), split);
    }
    let Shape { h, w, c, .. } = input;
    let text = format!(
        "name = \"random\"\n[data]\ntrain = {{ synthetic = {{ images = 9, classes = 2, shape = [{h}, {w}, {c}] }} }}\n\
         batch = 4\n[model]\ninput = [{h}, {w}, {c}]\nlayers = [\n{}]\n[optimizer]\nlr = 0.1\n[train]\nsteps = 1\n",
        drawing.text
    );
    (text, at)
}

/// Returns the features of a network that make placement hard.
fn features(network: &Network, at: Where) -> Vec<String> {
    let variant = Variant::gradients(at.rows);
    let Ok(resolved) = resolve(network, at.mesh, Mode::Train, at.rows) else { return vec![] };
    let mut found = Vec::new();
    let mut add = |there: bool, what: &str| {
        if there {
            found.push(what.to_string());
        }
    };
    for (index, node) in network.nodes.iter().enumerate() {
        let output = resolved[index].output;
        let users: Vec<usize> =
            (0..network.nodes.len()).filter(|&n| network.nodes[n].inputs.contains(&Source::Node(index))).collect();
        let wants = |place| users.iter().any(|&n| resolved[n].place == place);
        let wanted = [Placement::Replicate, Placement::Shard(Dim::BATCH), Placement::Shard(Dim::CHANNELS)]
            .into_iter()
            .filter(|&p| wants(p))
            .count();
        add(wanted > 1, "a fan-out whose consumers need different layouts");
        add(wanted > 1 && output == Placement::Partial, "a partial output whose consumers need different layouts");
        add(users.len() > 1 && output == Placement::Partial, "a partial output with several consumers");
        let view = |&n: &usize| resolved[n].is_view();
        add(output == Placement::Partial && users.iter().any(view), "a view of a partial output");
        add(output == Placement::Partial && users.len() > 1 && users.iter().any(view), "a view beside other consumers");
        let places = node.inputs.iter().map(|input| match input {
            Source::Node(n) => resolved[*n].output,
            Source::Images => Placement::Replicate,
        });
        let mut places: Vec<Placement> = places.collect();
        places.dedup();
        add(places.len() > 1, "a join of differently placed inputs");
    }
    add(at.rows < at.mesh.devices(), "devices that may hold no rows");
    add(at.staged, "collectives through the host's memory");
    let spec = Spec { mesh: at.mesh, precision: Precision::F64, ..Spec::default() };
    let placed = place(network, &Chain::default(), &spec, variant).expect("the network was resolved above");
    let backward = |op: &Op| matches!(op, Op::Phase { pass: Pass::Backward, .. });
    let first = placed.ops.iter().position(backward).unwrap_or(0);
    for (number, op) in placed.ops.iter().enumerate() {
        match op {
            Op::Move { collective, axis, .. } => {
                found.push(format!(
                    "{} {collective} over {axis:?}",
                    if number < first { "forward" } else { "backward" }
                ));
            }
            Op::Add { .. } => found.push("a sum of gradients".to_string()),
            Op::Phase { operands, .. } => assert!(operands.iter().any(|(_, _, access)| *access != Access::Read)),
            _ => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The features that the drawn networks must have, each at least ten times.
const NEEDED: [&str; 18] = [
    "a fan-out whose consumers need different layouts",
    "a join of differently placed inputs",
    "a partial output whose consumers need different layouts",
    "a partial output with several consumers",
    "a sum of gradients",
    "a view beside other consumers",
    "a view of a partial output",
    "backward all-gather over Columns",
    "backward all-reduce over Columns",
    "backward all-reduce over Data",
    "backward all-to-all over Columns",
    "backward reduce-scatter over Columns",
    "collectives through the host's memory",
    "devices that may hold no rows",
    "forward all-gather over Columns",
    "forward all-reduce over Columns",
    "forward all-to-all over Columns",
    "forward reduce-scatter over Columns",
];

fn network(text: &str) -> Arc<Network> {
    crate::common::network(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn compare(network: &Arc<Network>, at: Where) -> Result<(f64, String), Vec<Problem>> {
    let split = Outcome::of(network, at)?;
    split.assert_same_bits(&Outcome::executed(network, at, Execution::Serial)?, "differs between queues and serial");
    let whole = Outcome::of(network, Where { mesh: Mesh::ONE, ..at }).expect("every network fits one device");
    let (difference, name) = split.difference(&whole);
    Ok((difference, name.to_string()))
}

/// Compares a list of layers, on 3x3 images with 4 channels, with the same layers on meshes of two columns.
fn same_in_two_columns(layers: &str) {
    let text = format!(
        "name = \"written\"\n[data]\ntrain = {{ synthetic = {{ images = 9, classes = 2, shape = [3, 3, 4] }} }}\n\
         batch = 4\n[model]\ninput = [3, 3, 4]\nlayers = [\n{layers}]\n[optimizer]\nlr = 0.1\n[train]\nsteps = 1\n"
    );
    for (data, algorithm, staged) in [
        (1, CollectiveAlgorithm::OnePass, false),
        (2, CollectiveAlgorithm::Ring, false),
        (2, CollectiveAlgorithm::Ring, true),
    ] {
        let mesh = Mesh { data, columns: 2 };
        let (difference, name) = compare(&network(&text), Where { mesh, algorithm, staged, rows: 3 }).unwrap();
        assert!(difference <= TOLERANCE, "{name} differs by {difference:e}");
    }
}

#[test]
fn a_view_of_partial_sums_and_its_neighbours_share_one_reduction() {
    same_in_two_columns(
        r#"{ name = "a", conv = { filters = 4, kernel = 1 }, split = "rows" },
        { name = "view", flatten = {} },
        { name = "b", dense = { units = 4 } },
        { name = "mean", global_avg_pool = {}, inputs = ["a"] },
        { name = "c", dense = { units = 4 } },
        { add = {}, inputs = ["b", "c"] },"#,
    );
}

#[test]
fn ungrouped_lrn_sees_all_channels_of_a_partial_input() {
    same_in_two_columns(
        r#"{ conv = { filters = 4, kernel = 1 }, split = "rows" },
        { lrn = { size = 3, alpha = 0.5 } },
        { conv = { filters = 4, kernel = 1, groups = 2 } },
        { dense = { units = 4 } },"#,
    );
}

#[test]
fn a_network_is_the_same_however_it_is_split() {
    let config = Config {
        cases: 1500,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let seen: RefCell<BTreeMap<String, usize>> = RefCell::default();
    let worst: RefCell<f64> = RefCell::default();
    let numbers = prop::collection::vec(any::<u16>(), 4..60);
    let result = TestRunner::new(config).run(&numbers, |numbers| {
        let (text, at) = draw(&numbers);
        let network = network(&text);
        let mut count = |what: String| *seen.borrow_mut().entry(what).or_default() += 1;
        match compare(&network, at) {
            Ok((difference, name)) => {
                features(&network, at).into_iter().for_each(&mut count);
                count("fits".to_string());
                let mut worst = worst.borrow_mut();
                *worst = worst.max(difference);
                prop_assert!(difference <= TOLERANCE, "{name} differs by {difference:e}, {at:?}\n{text}");
            }
            Err(problems) => {
                count("does not fit".to_string());
                prop_assert!(problems.iter().all(|p| p.message.starts_with("layer \"l")), "{problems:?}");
            }
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    let seen = seen.into_inner();
    println!("largest difference {:.1e}; seen: {seen:#?}", worst.into_inner());
    for what in NEEDED {
        assert!(seen.get(what).is_some_and(|&n| n >= 10), "too few networks had {what}");
    }
    assert!(2 * seen["does not fit"] < seen["fits"], "too few networks fit their meshes");
}
