//! The routes of one host, by path: a tree of segments.
//!
//! From left to right a segment as it stands goes before a variable, and that before whatever a shorter prefix takes; a path
//! that ends here before one that takes all below. A lookup enters each node at most once, whatever is asked.

use smallvec::SmallVec;

use super::pattern::{Part, Pattern, split};

/// All paths of one host.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The root is the first; empty where there is no route.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// What follows, by segment, sorted.
    literals: Vec<(Box<str>, usize)>,
    /// What follows any segment.
    variable: Option<usize>,
    /// Routes for the path that ends here, best first.
    exact: Vec<usize>,
    /// Routes for this path and all below it, best first.
    below: Vec<usize>,
}

/// What a lookup has still to look at.
enum Open<'a> {
    /// A node, with what of the path is left behind it.
    Enter(usize, Option<&'a str>),
    /// What a node takes of all that is below it.
    Below(usize),
}

impl Tree {
    /// Puts `route` behind those that have its path already.
    pub(super) fn insert(&mut self, pattern: &Pattern, route: usize) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for part in &pattern.parts {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            at = match part {
                Part::Variable => *node.variable.get_or_insert(next),
                Part::Literal(text) => match node.literals.binary_search_by(|(other, _)| other.cmp(text)) {
                    Ok(i) => node.literals.get(i).map_or(next, |(_, to)| *to),
                    Err(i) => {
                        node.literals.insert(i, (text.clone(), next));
                        next
                    }
                },
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            if pattern.below { node.below.push(route) } else { node.exact.push(route) }
        }
    }

    /// The best route for `path` of those that `fits`, and whether its path ends where `path` does.
    pub(super) fn find(&self, path: &str, fits: impl Fn(usize) -> bool) -> Option<(usize, bool)> {
        let first = |list: &[usize]| list.iter().copied().find(|&route| fits(route));
        let mut open: SmallVec<[Open<'_>; 16]> = SmallVec::new();
        // `*`, of OPTIONS, is a path of its own: only who takes everything takes it.
        open.push(path.strip_prefix('/').map_or(Open::Below(0), |rest| Open::Enter(0, Some(rest))));
        while let Some(next) = open.pop() {
            match next {
                Open::Below(at) => {
                    if let Some(route) = first(&self.nodes.get(at)?.below) {
                        return Some((route, false));
                    }
                }
                Open::Enter(at, rest) => {
                    let node = self.nodes.get(at)?;
                    if !node.below.is_empty() {
                        open.push(Open::Below(at));
                    }
                    let Some(rest) = rest else {
                        if let Some(route) = first(&node.exact) {
                            return Some((route, true));
                        }
                        continue;
                    };
                    let (segment, rest) = split(rest);
                    if let Some(next) = node.variable.filter(|_| !segment.is_empty()) {
                        open.push(Open::Enter(next, rest));
                    }
                    let same = node.literals.binary_search_by(|(text, _)| (**text).cmp(segment));
                    if let Some((_, next)) = same.ok().and_then(|i| node.literals.get(i)) {
                        open.push(Open::Enter(*next, rest));
                    }
                }
            }
        }
        None
    }
}
