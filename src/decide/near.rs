//! Who is near: classes of addresses, each with the candidates of a steered name that are near to it.
//!
//! Made once for a topology and a set of candidates; a query does one lookup and never learns where a class came from.
//! Classes follow the configuration alone, never health, so scopes stand still while datacenters come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::base::prefix::PrefixMap;

/// Who is near: classes of addresses, each with the candidates that are near to it.
#[derive(Clone, Debug)]
pub struct Near {
    map: PrefixMap<u32>,
    /// By class: whether each candidate is near. Class 0 is near to nobody.
    classes: Vec<Box<[bool]>>,
}

impl Near {
    /// Builds the classes from the prefixes of each candidate, in their order. The longest prefix over all candidates wins;
    /// who has an equal one shares it.
    pub fn build<'a>(candidates: impl ExactSizeIterator<Item = &'a [IpNet]>) -> Self {
        let count = candidates.len();
        let mut rules: BTreeMap<IpNet, Vec<bool>> = BTreeMap::new();
        for (i, nets) in candidates.enumerate() {
            for net in nets {
                if let Some(near) = rules.entry(net.trunc()).or_insert_with(|| vec![false; count]).get_mut(i) {
                    *near = true;
                }
            }
        }
        let mut known: BTreeMap<Vec<bool>, u32> = BTreeMap::from([(vec![false; count], 0)]);
        let mut classes = vec![vec![false; count].into_boxed_slice()];
        let rules: Vec<(IpNet, u32)> = rules
            .into_iter()
            .map(|(net, near)| {
                let class = *known.entry(near).or_insert_with_key(|near| {
                    classes.push(near.clone().into());
                    classes.len() as u32 - 1
                });
                (net, class)
            })
            .collect();
        Self { map: PrefixMap::build(rules, 0), classes }
    }

    /// The candidates that are near to `address`, by their place, with the depth of the leaf that holds it. `None`: nobody is.
    pub fn find(&self, address: IpAddr) -> (Option<&[bool]>, u8) {
        let leaf = self.map.find(address);
        (self.classes.get(leaf.value as usize).map(AsRef::as_ref).filter(|_| leaf.value > 0), leaf.depth)
    }
}
