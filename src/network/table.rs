//! Prints the network as a table.

use super::{Network, Node, Source};
use std::fmt;

impl Network {
    /// Returns the number of values in all parameters.
    pub fn num_parameters(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.param.shape.elements()).sum()
    }

    /// Returns the floating-point operations of one sample's forward pass.
    pub fn cost(&self) -> u64 {
        let costs = self.nodes.iter().map(|node| node.layer.cost(&node.input_shapes));
        costs.fold(0, u64::saturating_add)
    }

    /// Returns the names of a node's inputs.
    pub fn input_names(&self, node: &Node) -> Vec<&str> {
        let name = |input: &Source| match input {
            Source::Images => "images",
            Source::Node(node) => self.nodes[*node].name.as_str(),
        };
        node.inputs.iter().map(name).collect()
    }

    /// Returns the cells of the line for a node.
    fn cells(&self, node: &Node) -> [String; 6] {
        let shapes: Vec<String> = node.input_shapes.iter().map(|shape| shape.to_string()).collect();
        let params = node.params.iter().map(|&i| self.parameters[i].param.shape.elements()).sum::<usize>();
        [
            node.name.clone(),
            node.layer.key().to_string(),
            self.input_names(node).join(" + "),
            format!("{} -> {}", shapes.join(" + "), node.output),
            if params == 0 { String::new() } else { params.to_string() },
            flops(node.layer.cost(&node.input_shapes)),
        ]
    }
}

/// Formats the network as a table: name, kind, inputs, shapes for one sample, number of parameters, and floating-point
/// operations of one sample's forward pass.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![["layer", "kind", "inputs", "shapes", "parameters", "cost"].map(String::from)];
        lines.extend(self.nodes.iter().map(|node| self.cells(node)));
        let [total, kinds, inputs, shapes] = ["total", "", "", ""].map(String::from);
        lines.push([total, kinds, inputs, shapes, self.num_parameters().to_string(), flops(self.cost())]);
        let widths: Vec<usize> =
            (0..6).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
        for line in &lines {
            let mut text = String::new();
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                text += &if column < 4 { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Formats a number of floating-point operations with a unit.
fn flops(count: u64) -> String {
    let count = count as f64;
    match count {
        c if c < 1e3 => format!("{c:.0} flop"),
        c if c < 1e6 => format!("{:.1} kflop", c / 1e3),
        c if c < 1e9 => format!("{:.1} Mflop", c / 1e6),
        c => format!("{:.1} Gflop", c / 1e9),
    }
}
