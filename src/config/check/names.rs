//! Names of things in the file: each stands once, and what is referred to is there.

use std::collections::HashMap;

use super::Checker;
use crate::config::diag::{Code, Finding, Span};
use crate::config::guess::nearest;
use crate::config::reader::{Said, list};
use crate::config::words::Name;

/// The names of one kind of thing, with the index of each.
pub(super) struct Names {
    what: &'static str,
    ids: HashMap<String, usize>,
    order: Vec<String>,
    /// Whether every one of them could be read: else no name is called unknown.
    complete: bool,
}

impl Names {
    /// Collects names in order; notes those that stand twice. `None` is a name that could not be read.
    pub(super) fn collect<'a>(
        what: &'static str,
        said: impl Iterator<Item = Option<&'a Said<Name>>>,
        checker: &mut Checker<'_>,
    ) -> Self {
        let mut names = Self { what, ids: HashMap::new(), order: Vec::new(), complete: checker.whole };
        let mut places: HashMap<String, Span> = HashMap::new();
        for (index, name) in said.enumerate() {
            let Some(name) = name else {
                names.complete = false;
                continue;
            };
            if let Some(first) = places.insert(name.0.clone(), name.span) {
                checker.twice(name.span, first, format!("{what} `{}` stands twice", name.0));
            }
            names.ids.entry(name.0.clone()).or_insert(index);
            names.order.push(name.0.clone());
        }
        names
    }

    /// Whether it is there.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.ids.contains_key(name)
    }

    /// The index of a name, if it is there.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.ids.get(name).copied()
    }

    /// The index of a name; notes one that is not there.
    pub(super) fn resolve(&self, name: &str, span: Span, checker: &mut Checker<'_>) -> Option<usize> {
        let found = self.ids.get(name).copied();
        if found.is_none() && self.complete {
            let message = format!("there is no {} `{name}`", self.what);
            checker.notes.push(Finding::error(Code::UnknownName, span, message).hint(self.remedy(name)));
        }
        found
    }

    fn remedy(&self, name: &str) -> String {
        let names: Vec<&str> = self.order.iter().map(String::as_str).take(8).collect();
        match nearest(name, self.order.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => format!("add a `[[{}]]` with that name", self.what),
            None if self.order.len() > names.len() => {
                format!("there are {} and {} more", list(&names), self.order.len() - names.len())
            }
            None => format!("there are {}", list(&names)),
        }
    }
}
