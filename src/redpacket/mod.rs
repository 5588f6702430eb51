//! Floor 6: the red-packet upstreams that ship with the router: domain, ledger, stores, services.
