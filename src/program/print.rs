//! Prints plans: as text, as JSON, as a Mermaid graph.

use super::estimate::{nccl, seconds};
use super::hardware::Hardware;
use super::rings::Ring;
use super::{Plan, Program, Work};
use crate::collectives::Collective;
use crate::device::Queue;
use crate::layers::{Mode, Role};
use crate::network::Node;
use crate::optim::UpdateRole;
use crate::placement::{Peers, resolve};
use crate::tensor::{Dim, Layout, Placement, Shape};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a printed plan contains besides its programs.
#[derive(Debug, Clone, Copy)]
pub struct Printer<'a> {
    /// The kind of the devices: `cpu`.
    pub device: &'a str,
    /// The updates of the whole run.
    pub steps: u64,
    /// The machine for which times are estimated.
    pub hardware: &'a Hardware,
}

impl Plan {
    /// Returns the program of a full training step, or the first one.
    fn main(&self) -> &Program {
        let training = self.programs.iter().filter(|p| p.variant.mode == Mode::Train);
        training.max_by_key(|p| (p.variant.update, p.variant.batch)).unwrap_or(&self.programs[0])
    }

    /// Returns the bytes that cross between devices in one training step.
    pub fn wire_bytes_per_step(&self) -> usize {
        let wire =
            |work: &Work| if let Work::Sum { wire, .. } | Work::Collective { wire, .. } = work { *wire } else { 0 };
        self.main().instructions.iter().map(|s| wire(&s.work)).sum()
    }

    /// Returns how many of these bytes belong to collectives between processes.
    pub fn bytes_between_processes_per_step(&self) -> usize {
        let wire = |work: &Work| if let Work::Collective { wire, .. } = work { *wire } else { 0 };
        self.main().instructions.iter().map(|s| wire(&s.work)).sum()
    }

    /// Returns the plan as text: the instructions of each device, the purposes of its bytes, and the traffic between
    /// devices.
    pub fn text(&self, cx: Printer) -> String {
        let mut out = String::new();
        let main = self.main();
        let mesh = self.spec.mesh;
        let _ = writeln!(
            out,
            "mesh {mesh} ({} data x {} columns), {}, batch {}, collectives {}",
            mesh.data,
            mesh.columns,
            self.spec.products.name(self.spec.precision),
            main.variant.batch,
            self.spec.algorithm
        );
        self.write_layouts(&mut out, main);
        let _ = writeln!(out, "\nprograms: {}", self.programs.iter().map(title).collect::<Vec<_>>().join(", "));
        for device in 0..mesh.devices() {
            let _ = writeln!(
                out,
                "\ndevice {}:{device}{} at data {}, column {}",
                cx.device,
                if self.spec.processes.count() > 1 {
                    format!(" of process {}", self.spec.processes.of(device))
                } else {
                    String::new()
                },
                mesh.position(device).data,
                mesh.position(device).column
            );
            self.write_device(&mut out, main, device);
        }
        if self.spec.peers != Peers::All {
            let through = "pinned, for transfers between GPUs that cannot read each other's memory";
            let _ = writeln!(out, "\nhost memory {}: {through}", human(self.hosts[0]));
        }
        let _ = writeln!(out, "\ncollectives of one training step");
        for ((name, axis), (count, bytes)) in collectives(main) {
            let _ = writeln!(out, "  {name:<14} over {axis:<8} {count:>5} transfers  {:>12}", human(bytes));
        }
        let _ = writeln!(out, "  on the wire: {} a step", human(self.wire_bytes_per_step()));
        if self.spec.processes.count() > 1 {
            let between = human(self.bytes_between_processes_per_step());
            let _ = writeln!(out, "  of these, in collectives between processes: {between}");
        }
        for (axis, ring) in self.rings(main, cx.hardware) {
            let _ = writeln!(out, "  NCCL over {axis}: {ring}");
        }
        let step = seconds(self, main, cx.hardware);
        let _ = writeln!(
            out,
            "\nestimate for {}: {:.3} ms a step, {:.1} s for {} steps (a model, not a measurement)",
            cx.hardware.name,
            step * 1e3,
            step * cx.steps as f64,
            cx.steps
        );
        out
    }

    /// Returns the rings of NCCL along each axis of the mesh, as the first devices have them.
    fn rings(&self, main: &Program, hardware: &Hardware) -> BTreeMap<String, Ring> {
        let mut all = BTreeMap::new();
        for step in &main.instructions {
            if let Work::Collective { axis, .. } = &step.work
                && let Some((_, ring, _)) = nccl(self, main, step, hardware)
            {
                all.entry(format!("{axis:?}").to_lowercase()).or_insert(ring);
            }
        }
        all
    }

    /// Writes the layout of each layer over [data columns]: R = replicate, S(dim) = shard, P = partial.
    fn write_layouts(&self, out: &mut String, main: &Program) {
        let mesh = self.spec.mesh;
        let Ok(resolved) = resolve(&self.network, mesh, Mode::Train, main.variant.batch) else { return };
        let _ = writeln!(out, "\n{:<16} {:<9} {:<10} {:<10} parameters", "layer", "split", "input", "output");
        for (node, resolved) in self.network.nodes.iter().zip(&resolved) {
            let on = |columns| Layout::new(Placement::Shard(Dim::BATCH), columns).on_mesh(mesh).to_string();
            let split = node.split.map_or("-".to_string(), |split| split.to_string());
            let parameters: Vec<String> = (node.params.iter().zip(&resolved.phases.params))
                .map(|(&p, layout)| {
                    let name = self.network.parameters[p].param.name;
                    format!("{name} {}", layout.on_mesh(mesh))
                })
                .collect();
            let (input, output) = (on(resolved.place), on(resolved.output));
            let _ = writeln!(out, "{:<16} {split:<9} {input:<10} {output:<10} {}", node.name, parameters.join(", "));
        }
    }

    fn write_device(&self, out: &mut String, main: &Program, device: usize) {
        let usage = self.usage(device);
        let _ = writeln!(out, "  arena {}", human(usage.arena));
        for (name, bytes) in [
            ("weights", usage.weights),
            ("gradients", usage.gradients),
            ("optimizer", usage.optimizer),
            ("statistics", usage.statistics),
            ("activations", usage.activations),
            ("workspace", usage.workspace),
            ("communication", usage.communication),
        ] {
            let _ = writeln!(out, "    {name:<14}{:>12}", human(bytes));
        }
        for queue in Queue::ALL {
            let own: Vec<_> = main.instructions.iter().filter(|s| s.device == device && s.queue == queue).collect();
            let _ = writeln!(out, "  {queue} queue: {} instructions", own.len());
            for step in own {
                let waits: Vec<String> = step
                    .waits
                    .iter()
                    .map(|(q, n)| format!("{}:{}#{n}", Queue::ALL[q % Queue::COUNT], q / Queue::COUNT))
                    .collect();
                let waits = if waits.is_empty() { String::new() } else { format!("  after {}", waits.join(", ")) };
                let _ = writeln!(out, "    {:>4}  {}{waits}", step.index + 1, self.describe(main, step));
            }
        }
    }

    fn describe(&self, program: &Program, step: &super::Instruction) -> String {
        match &step.work {
            Work::Phase { node, operands, scratch, .. } => {
                let node = &self.network.nodes[*node];
                let named = operands.iter().map(|(role, local)| {
                    let (mut name, mut tensor) = self.names(node, *role);
                    let buffer = &program.buffers[local.buffer].name;
                    // A weight that follows from parameters, or its gradient.
                    if matches!(role, Role::Param(0) | Role::DParam(0)) && buffer.contains(".saved") {
                        (name, tensor) = (if *role == Role::WEIGHT { "w" } else { "dw" }.to_string(), None);
                    }
                    let tensor = tensor.unwrap_or_else(|| buffer.clone());
                    (format!("{name}={tensor}{}", Shape(local.window.len.clone())), local)
                });
                let scratch = scratch.as_ref().map(|local| format!("  scratch={}", local.window.elements()));
                format!("{}{}", arrow(&step.name, named), scratch.unwrap_or_default())
            }
            Work::Update { operands, .. } => {
                let named = operands.iter().map(|(role, local)| {
                    let name = match role {
                        UpdateRole::Weights => "weights".to_string(),
                        UpdateRole::Gradients => "gradients".to_string(),
                        UpdateRole::Norms => "norms".to_string(),
                        UpdateRole::Metrics => "metrics".to_string(),
                        UpdateRole::NonFiniteGradients => "nonfinite_gradients".to_string(),
                        UpdateRole::NonFiniteWeights => "nonfinite_weights".to_string(),
                        UpdateRole::LowPrecision => "weights_bf16".to_string(),
                        UpdateRole::Slot(slot) => {
                            format!("{}.{}", self.chain.transforms[slot.transform].key(), slot.name)
                        }
                    };
                    (name, local)
                });
                arrow(&step.name, named)
            }
            Work::Sum { wire, targets, .. } => {
                let elements = targets.first().map_or(0, |(_, part)| part.elements());
                format!("{}: {elements} elements, {} on the wire", step.name, human(*wire))
            }
            Work::Collective { peers, parts, wire, .. } => {
                let elements: usize = parts.iter().map(|part| part.to.1.elements()).sum();
                format!(
                    "{}: {elements} elements with {} devices, {} on the wire",
                    step.name,
                    peers.len() - 1,
                    human(*wire)
                )
            }
            Work::Load { to, .. } => format!("{} {}", step.name, Shape(to.window.len.clone())),
        }
    }

    /// Returns the short name of a role, as in formulas, and the name of the parameter or statistic that it refers to.
    fn names(&self, node: &Node, role: Role) -> (String, Option<String>) {
        let numbered = |name: &str, i: usize| {
            if node.inputs.len() == 1 { name.to_string() } else { format!("{name}{i}") }
        };
        let parameter = |i: usize| &self.network.parameters[node.params[i]];
        let short = |i: usize| match parameter(i).param.name {
            "weight" => "w",
            "bias" => "b",
            name => name,
        };
        match role {
            Role::X(i) => (numbered("x", i), None),
            Role::Y => ("y".into(), None),
            Role::Dy => ("dy".into(), None),
            Role::Dx(i) => (numbered("dx", i), None),
            Role::Param(i) => (short(i).into(), Some(parameter(i).name.clone())),
            Role::DParam(i) => (format!("d{}", short(i)), Some(format!("{}.grad", parameter(i).name))),
            Role::Statistic(i) => {
                let state = &self.network.statistics[node.statistics[i]];
                (state.param.name.into(), Some(state.name.clone()))
            }
            Role::Saved(i) => (format!("saved{i}"), None),
            Role::Target => ("targets".into(), None),
            Role::Metrics => ("metrics".into(), None),
        }
    }

    /// Returns the plan as JSON.
    pub fn json(&self, cx: Printer) -> serde_json::Value {
        let main = self.main();
        let step = seconds(self, main, cx.hardware);
        let devices: Vec<_> = (0..self.spec.mesh.devices())
            .map(|device| {
                let usage = self.usage(device);
                let steps = |queue| main.instructions.iter().filter(|s| s.device == device && s.queue == queue).count();
                serde_json::json!({
                    "name": format!("{}:{device}", cx.device),
                    "process": self.spec.processes.of(device),
                    "arena_bytes": usage.arena,
                    "weights_bytes": usage.weights,
                    "gradients_bytes": usage.gradients,
                    "optimizer_bytes": usage.optimizer,
                    "statistics_bytes": usage.statistics,
                    "activations_bytes": usage.activations,
                    "workspace_bytes": usage.workspace,
                    "communication_bytes": usage.communication,
                    "compute_steps": steps(Queue::Compute),
                    "communication_steps": steps(Queue::Communication),
                    "copy_steps": steps(Queue::Copy),
                })
            })
            .collect();
        let moved: Vec<_> = collectives(main)
            .into_iter()
            .map(|((name, axis), (count, bytes))| {
                serde_json::json!({"collective": name, "axis": axis, "transfers": count, "wire_bytes": bytes})
            })
            .collect();
        serde_json::json!({
            "hardware": cx.hardware.name,
            "total_seconds": step * cx.steps as f64,
            "step_seconds": step,
            "steps": cx.steps,
            "mesh": {"data": self.spec.mesh.data, "columns": self.spec.mesh.columns},
            "devices": devices,
            "host_bytes": self.hosts[0],
            "collectives": moved,
            "wire_bytes_per_step": self.wire_bytes_per_step(),
            "bytes_between_processes_per_step": self.bytes_between_processes_per_step(),
        })
    }

    /// Returns the instructions of device 0 in a training step as a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart TD\n");
        let main = self.main();
        let mut writers: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, step) in main.instructions.iter().enumerate().filter(|(_, s)| s.device == 0) {
            let (left, right) = match step.queue {
                Queue::Compute => ("[", "]"),
                Queue::Communication => ("([", "])"),
                Queue::Copy => ("[/", "/]"),
            };
            let _ = writeln!(out, "  s{number}{left}\"{}\"{right}", step.name.replace('"', "'"));
            for u in step.uses.iter().filter(|u| u.access.reads()) {
                if let Some(writer) = writers.get(&u.buffer).filter(|w| **w != number) {
                    let _ = writeln!(out, "  s{writer} --> s{number}");
                }
            }
            for u in step.uses.iter().filter(|u| u.access.writes()) {
                writers.insert(u.buffer, number);
            }
        }
        out
    }
}

/// Returns an instruction as `name  reads -> writes`.
fn arrow<'a>(name: &str, operands: impl Iterator<Item = (String, &'a super::LocalOperand)>) -> String {
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for (text, local) in operands {
        if local.access.reads() {
            read.push(text.clone());
        }
        if local.access.writes() {
            written.push(text);
        }
    }
    format!("{name}  {} -> {}", read.join(" "), written.join(" "))
}

fn title(program: &Program) -> String {
    format!(
        "{:?} of {} samples ({} instructions)",
        program.variant.mode,
        program.variant.batch,
        program.instructions.len()
    )
    .to_lowercase()
}

/// Returns the number of transfers and the bytes on the wire by collective and axis. Slices cross no wire; their copies
/// are counted instead.
fn collectives(program: &Program) -> BTreeMap<(String, String), (usize, usize)> {
    let mut all = BTreeMap::new();
    for step in &program.instructions {
        if let Work::Sum { collective: Some((collective, axis)), wire, .. }
        | Work::Collective { collective, axis, wire, .. } = &step.work
        {
            let key = (collective.to_string(), format!("{axis:?}").to_lowercase());
            let entry: &mut (usize, usize) = all.entry(key).or_default();
            entry.0 += usize::from(*wire > 0 || *collective == Collective::Slice);
            entry.1 += wire;
        }
    }
    all
}

fn human(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
