//! Small interned identifiers: an index with a type, so that a service is never mistaken for a backend.
//!
//! Ids are dense indices into the tables of one topology. They are good for one generation; what outlives a reload
//! (counters, evidence) is matched by name when the next topology is built.

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u32);

        impl $name {
            /// The id of entry `index` of its table. Tables are bounded far below 2^32 by the configuration's checks.
            pub const fn new(index: usize) -> Self {
                Self(index as u32)
            }

            /// Where its entry stands in its table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

ids! {
    /// A datacenter of the configuration.
    DatacenterId,
    /// A service of the configuration.
    ServiceId,
    /// A backend: one address of one service in one datacenter.
    BackendId,
    /// A probed target: an address with a definition of how to probe it, shared by all backends that want the same.
    TargetId,
    /// A route of the edge.
    RouteId,
    /// A listener of the edge.
    ListenerId,
    /// A steered name of the name server.
    SteerId,
    /// A zone of the name server.
    ZoneId,
}
