//! Prefix trees of the legal values of a field, over token ids.

/// A tree whose paths are the token sequences of legal values. A line end closes a value.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Ids that may follow, ascending; the line end is one of them where a value is complete.
    allowed: Vec<u32>,
    /// Node behind each of those ids; `None` behind the line end.
    next: Vec<Option<usize>>,
}

/// Where a token leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// To this node.
    Node(usize),
    /// Out of the tree: the value is complete.
    Complete,
}

impl Tree {
    /// The tree of `values`, each a sequence of tokens without the line end.
    pub(super) fn new(values: &[Vec<u32>], newline: u32) -> Self {
        let mut tree = Tree {
            nodes: vec![Node::default()],
        };
        for value in values {
            let mut at = 0;
            for &id in value {
                at = match tree.step(at, id) {
                    Some(Step::Node(next)) => next,
                    _ => {
                        tree.nodes.push(Node::default());
                        let next = tree.nodes.len() - 1;
                        tree.nodes[at].insert(id, Some(next));
                        next
                    }
                };
            }
            tree.nodes[at].insert(newline, None);
        }
        tree
    }

    /// Ids that may follow at `node`, ascending.
    pub(super) fn allowed(&self, node: usize) -> &[u32] {
        &self.nodes[node].allowed
    }

    /// Where `id` leads from `node`; `None` when it is not allowed there.
    pub(super) fn step(&self, node: usize, id: u32) -> Option<Step> {
        let node = &self.nodes[node];
        let at = node.allowed.binary_search(&id).ok()?;
        Some(node.next[at].map_or(Step::Complete, Step::Node))
    }

    /// Number of prefixes, the empty one included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl Node {
    fn insert(&mut self, id: u32, next: Option<usize>) {
        if let Err(at) = self.allowed.binary_search(&id) {
            self.allowed.insert(at, id);
            self.next.insert(at, next);
        }
    }
}
