//! The lists of nodes that Slurm writes, such as `gpu[01-03,07],login`.

/// Returns the first node of a list: `gpu01` of `gpu[01-03,07],login`; none if it is not such a list.
pub fn first_node(list: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = list;
    loop {
        let end = rest.find(['[', ',', ']']).unwrap_or(rest.len());
        name.push_str(&rest[..end]);
        let Some(inside) = rest[end..].strip_prefix('[') else {
            let is_closed = !rest[end..].starts_with(']');
            return (is_closed && !name.is_empty()).then_some(name);
        };
        let (inside, after) = inside.split_once(']')?;
        let first = inside.split([',', '-']).next().filter(|first| first.bytes().all(|byte| byte.is_ascii_digit()))?;
        if first.is_empty() {
            return None;
        }
        name.push_str(first);
        rest = after;
    }
}

/// Returns the number of tasks on a node by the counts that Slurm writes: 4 for node 2 of `2(x2),4`; none if it is not such a list.
pub(super) fn tasks_of_node(counts: &str, node: usize) -> Option<usize> {
    let mut first = 0;
    for group in counts.split(',') {
        let (tasks, nodes) = match group.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse::<usize>().ok()?),
            None => (group, 1),
        };
        let tasks: usize = tasks.parse().ok()?;
        first += nodes;
        if node < first {
            return Some(tasks);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_is_found_in_lists_of_slurm() {
        for (list, first) in [
            ("login", "login"),
            ("a,b", "a"),
            ("gpu[01-03,07],login", "gpu01"),
            ("gpu[7,9]", "gpu7"),
            ("rack[2-3]node[10-12].cluster", "rack2node10.cluster"),
            ("rack3n[5]-ib,other", "rack3n5-ib"),
        ] {
            assert_eq!(first_node(list).as_deref(), Some(first), "{list}");
        }
        for wrong in ["", ",a", "gpu[", "gpu]", "gpu[]", "gpu[a-b]", "[", "x[1]]"] {
            assert_eq!(first_node(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tasks_are_counted_by_node() {
        let tasks = |counts| (0..5).map(|node| tasks_of_node(counts, node)).collect::<Vec<_>>();
        assert_eq!(tasks("2(x2),4"), [Some(2), Some(2), Some(4), None, None]);
        assert_eq!(tasks("8"), [Some(8), None, None, None, None]);
        assert_eq!(tasks("1,3(x3)"), [Some(1), Some(3), Some(3), Some(3), None]);
        assert_eq!(tasks("2(x2"), [None; 5]);
        assert_eq!(tasks("two"), [None; 5]);
    }
}
