//! Metrics of the name server.

use super::{Kind, table};

/// Buckets for the time that a table takes to compile: 10 us to 10 s.
const COMPILE_SECONDS: &[f64] = &[0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0];

table! {
    QUERIES: Kind::Counter, "springtide_dns_queries_total", ["transport"], "Packets and messages that came in, broken ones among them, by transport: `udp`, `tcp`, `tls`, `https`, `quic`.";
    RESPONSES: Kind::Counter, "springtide_dns_responses_total", ["rcode"], "Answers by how they end.";
    DROPPED: Kind::Counter, "springtide_dns_dropped_total", ["reason"], "What was not answered: `short` (less than a header), `response` (an answer, not a query), `limited` (its network has had its share), `unsent` (the socket took no more).";
    TRUNCATED: Kind::Counter, "springtide_dns_truncated_total", [], "Answers that did not fit into the packet: the client comes again over TCP.";
    STEERED: Kind::Counter, "springtide_dns_steered_total", ["name", "datacenter"], "Answers of a steered name by the datacenter that stands first in them.";
    ZONES: Kind::Counter, "springtide_dns_zone_responses_total", ["zone", "rcode"], "Answers by the zone that speaks in them, and by how they end.";
    TYPES: Kind::Counter, "springtide_dns_types_total", ["type"], "Answers by the type that was asked for; `other` is every type without a counter of its own.";
    REASONS: Kind::Counter, "springtide_dns_steering_total", ["reason"], "Answers of steered names by why they are what they are; `explain` has the same words.";
    GEO_ANSWERS: Kind::Counter, "springtide_dns_geo_answers_total", ["reason", "near"], "Answers of names that steer by `near`, by why they are what they are and by whether the map knows the client: `somebody` is near to it, or `nobody` (it is in no prefix and no place that a datacenter names). Names without `near` are not counted here.";
    GEO_READINGS: Kind::Counter, "springtide_dns_geo_readings_total", ["file", "outcome"], "Readings of a file of `[geo]`: `usable`, or `refused` (missing, broken, or of the wrong kind). All files come in force together or not at all.";
    GEO_ACCEPTED: Kind::Gauge, "springtide_dns_geo_accepted", ["file"], "1 where the last reading of a file of `[geo]` was usable, 0 where it was refused and what it said before is still in force. Files that are usable one by one may be refused together, by `dns.ecs_max_classes`: `springtide_control_reload_refused` tells.";
    GEO_MADE: Kind::Gauge, "springtide_dns_geo_made_timestamp_seconds", ["file"], "When what is in force of a file of `[geo]` was made, in Unix time: a database says so itself, of a list it is when it was written. NaN where the file is not read any more.";
    GEO_NETWORKS: Kind::Gauge, "springtide_dns_geo_networks", ["file"], "Networks that a file of `[geo]` in force knows; NaN where it is not read any more.";
    GEO_BYTES: Kind::Gauge, "springtide_dns_geo_file_bytes", ["file"], "Size of a file of `[geo]` in force; NaN where it is not read any more.";
    GEO_READ_SECONDS: Kind::Gauge, "springtide_dns_geo_read_seconds", ["file"], "How long it took to read a file of `[geo]` in force and to reduce it to what is asked of it; NaN where it is not read any more.";
    GEO_MAP_BYTES: Kind::Gauge, "springtide_dns_geo_map_bytes", [], "Memory of the maps that `near` is looked up in; steered names with the same datacenters share one.";
    ECS_CLASSES: Kind::Gauge, "springtide_dns_ecs_classes", ["name"], "Into how many classes client subnets divide the answers of a name that steers by `near` or has fences: blocks of addresses with a scope of their own, which a resolver asks for one by one. Names that are told apart by a hash are not counted: they have `client_prefix_v4` and `client_prefix_v6`. `dns.ecs_max_classes` limits them.";
    STANDINGS: Kind::Counter, "springtide_dns_standing_total", ["standing"], "Answers by what the client has shown of itself: `unknown` (nothing: its address may be forged), `cookie` (it speaks cookies and has none of ours yet), `proven` (by a cookie of ours, or by a transport with a handshake).";
    LIMITED: Kind::Counter, "springtide_dns_limited_total", ["class", "fate"], "Answers over a limit of `rate_limit`, by limit and by what became of them: `dropped`, `truncated` or `badcookie` (sent without records), `counted` (a dry run). `springtide dns top` names the networks.";
    LOG_LINES: Kind::Counter, "springtide_dns_log_lines_total", ["outcome"], "Lines of the query log: `written`, or `lost` because the writer did not keep up or its file can't be written.";
    CONNECTIONS: Kind::Gauge, "springtide_dns_connections", ["transport"], "Connections that are open, by transport: `tcp`, `tls`, `https`, `quic`.";
    CLOSED: Kind::Counter, "springtide_dns_closed_total", ["transport", "reason"], "Connections by how they ended: `client` (it closed, or the connection broke), `idle`, `evicted` (made room for another), `slow` (did not take its answers), `handshake` (TLS or QUIC failed or took too long), `header` (a balancer's PROXY header is missing or broken), `protocol` (broke the rules of its transport), `shutdown`.";
    HTTPS_REFUSED: Kind::Counter, "springtide_dns_https_refused_total", ["status"], "HTTP requests that are no DNS query, by the status they got: 400, 404, 405, 408, 413, 415, 429.";
    QUIC_RETRIES: Kind::Counter, "springtide_dns_quic_retries_total", [], "QUIC clients that had to show that they receive at their address before anything was done for them: handshakes had piled up.";
    ALIAS: Kind::Counter, "springtide_dns_alias_lookups_total", ["result"], "Lookups of what an ALIAS stands for: `found` (nothing is an answer, too), `failed` (what was known is given on).";
    TRANSFERS: Kind::Counter, "springtide_dns_transfers_total", ["result"], "Zone transfers: `whole`, `changes` (IXFR), `unchanged` (the secondary has the latest), `refused`, `busy` (too many at once), `broken` (the secondary left, or was too slow).";
    NOTIFIES: Kind::Counter, "springtide_dns_notifies_total", ["result"], "Secondaries told of a new serial: `heard`, `lost` (no answer after all tries).";
    SIGNATURES: Kind::Counter, "springtide_dns_signatures_total", ["how"], "Signatures of answers: `kept` (found in the cache), `made`, `refused` (the budget of this second is spent: the client comes by TCP, or gets SERVFAIL), `shared` (it is spent for sets that steered names choose for networks: the client got the addresses that many share).";
    KEYS_LEFT: Kind::Gauge, "springtide_dns_keys_left_seconds", ["zone", "keys"], "How long keys of a signed zone may still sign by their times, and those that follow them: `any`, and `zsk` (where zone-signing keys have ended, the key-signing key signs alone); +Inf where they have no end, 0 where it has come and signing goes on all the same.";
    COMPILE: Kind::Histogram(COMPILE_SECONDS), "springtide_dns_compile_seconds", ["part"], "Time to compile what is answered from: `static` once a topology (of which `near` is each map that `near` is looked up in), `steered` once a generation.";
}
