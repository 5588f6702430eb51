//! Metrics of the admin API.

use super::{Kind, table};

table! {
    REQUESTS: Kind::Counter, "springtide_admin_requests_total", ["path", "status"], "Requests to the admin API, by route and status; `other` is a path that does not exist.";
    STREAMS: Kind::Gauge, "springtide_admin_streams", [], "Clients that follow `/v1/events`.";
    STREAMS_DROPPED: Kind::Counter, "springtide_admin_streams_dropped_total", [], "Followers of `/v1/events` that were let go because they did not keep up.";
}
