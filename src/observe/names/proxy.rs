//! Metrics of the edge.

use super::{Kind, SECONDS, table};

table! {
    REQUESTS: Kind::Counter, "springtide_proxy_requests_total", ["route", "class"],
        "Requests answered, by route and class of the status. A client that left counts as 4xx.";
    REQUEST_DURATION: Kind::Histogram(SECONDS), "springtide_proxy_request_duration_seconds", ["route"],
        "From the head of a request to the end of its response.";
    REFUSED: Kind::Counter, "springtide_proxy_refused_total", ["route", "reason"],
        "Requests that no backend answered (or not to the end), by route (empty where none was found) and reason.";
    IN_FLIGHT: Kind::Gauge, "springtide_proxy_requests_in_flight", ["route"],
        "Requests under way whose route is known, bodies of responses among it.";
    RECEIVED: Kind::Counter, "springtide_proxy_received_bytes_total", ["route"],
        "Octets of requests' bodies that were read from clients; heads are not counted.";
    SENT: Kind::Counter, "springtide_proxy_sent_bytes_total", ["route"],
        "Octets of responses' bodies that were passed on to clients; heads are not counted.";
    TRIES: Kind::Counter, "springtide_proxy_upstream_tries_total", ["service", "outcome"],
        "Tries at backends, by how they ended.";
    UPSTREAM_DURATION: Kind::Histogram(SECONDS), "springtide_proxy_upstream_duration_seconds", ["service"],
        "From the beginning of a try to the head of its answer, a connection made for it among it; only tries that were answered.";
    UPSTREAM_CONNECT: Kind::Histogram(SECONDS), "springtide_proxy_upstream_connect_seconds", ["service"],
        "How long new connections to backends took, TLS among it; only those that were made.";
    RETRIES: Kind::Counter, "springtide_proxy_retries_total", ["service", "failure"],
        "Further tries, by the failure that they followed.";
    LIMITED: Kind::Counter, "springtide_proxy_limited_total", ["service", "limit"],
        "Times that a limit of the service stood in the way: of connections or pending, and another backend was asked; of requests at all backends, and the request was refused; of retries, and none was made.";
    HEDGES: Kind::Counter, "springtide_proxy_hedges_total", ["service", "what"],
        "Second requests beside slow first ones: sent, won (they answered first), denied (the budget was spent).";
    SPILLS: Kind::Counter, "springtide_proxy_spills_total", ["service", "datacenter"],
        "Tries that went to another datacenter than this node's, by where they went.";
    SPLIT: Kind::Counter, "springtide_proxy_split_total", ["route", "service", "why"],
        "Requests of routes that services share, by the service that had them and by why: user, lot or override.";
    MIRRORED: Kind::Counter, "springtide_proxy_mirrored_total", ["route", "outcome"],
        "Copies of requests: answered, failed, or not made because as many as may be were under way (full) or for the body.";
    ACCESS_LINES: Kind::Counter, "springtide_proxy_access_lines_total", ["outcome"],
        "Lines of the access log: written, or lost because the disk or the reader did not take them in time.";
    SPANS: Kind::Counter, "springtide_proxy_spans_total", ["outcome"],
        "Spans of recorded requests and of their tries: exported, full (no room for them: the collector is too slow), failed (it could not be reached, or not in time), refused (it does not want them). Only in builds with `otlp`.";
    EXPORTS: Kind::Counter, "springtide_proxy_span_exports_total", ["outcome"],
        "Requests to the collector of spans: taken, refused, later (it asks to come back), unreachable. Only in builds with `otlp`.";
    CONNECTIONS: Kind::Gauge, "springtide_proxy_connections", [],
        "Connections of clients that are open, handshakes among them.";
    GUESTS: Kind::Gauge, "springtide_proxy_client_connections", ["listener", "protocol"],
        "Connections of clients that are open and have got as far as HTTP, by listener and protocol: h1, h2, h3.";
    GUESTS_TOTAL: Kind::Counter, "springtide_proxy_client_connections_total", ["listener", "protocol"],
        "Connections of clients that have got as far as HTTP.";
    HANDSHAKES_FAILED: Kind::Counter, "springtide_proxy_handshakes_failed_total", [],
        "Connections that never got as far as a request: broken or missing PROXY headers, broken, refused or late TLS handshakes, and silence.";
    HANDSHAKES: Kind::Counter, "springtide_proxy_handshakes_total", ["version", "how"],
        "TLS handshakes with clients, by version (1.2, 1.3) and how: full, or resumed by a ticket.";
    CLIENT_CERTIFICATES: Kind::Counter, "springtide_proxy_client_certificates_total", ["outcome"],
        "Clients that were asked for a certificate: verified, none (and none was required), or refused.";
    HTTP2_GLITCHES: Kind::Counter, "springtide_proxy_http2_glitches_total", ["kind"],
        "Frames of HTTP/2 clients that make work for nothing, by kind. Honest clients cause some.";
    HTTP2_PARTED: Kind::Counter, "springtide_proxy_http2_parted_total", ["how", "kind"],
        "HTTP/2 connections given up for their glitches, by the kind of the last one: asked to leave at three quarters of what the listener allows, cut at all of it.";
    FILES: Kind::Counter, "springtide_proxy_files_total", ["route", "how"],
        "Requests for files, by how they were answered: whole, part, not_modified, precondition_failed, unsatisfiable (no such range), folder (sent to the same path with a slash behind it), missing.";
    FILES_MEMORY: Kind::Gauge, "springtide_proxy_files_memory_bytes", ["route"],
        "Octets of files that a route keeps in memory.";
    POOL_HITS: Kind::Counter, "springtide_proxy_pool_hits_total", ["service"],
        "Tries that found a connection ready.";
    POOL_DIALS: Kind::Counter, "springtide_proxy_pool_dials_total", ["service"],
        "Connections made to backends.";
    BY_PROTOCOL: Kind::Counter, "springtide_proxy_protocol_requests_total", ["protocol"],
        "Requests by what the client speaks: h1, h2, h3.";
    QUIC_RETRIES: Kind::Counter, "springtide_proxy_quic_retries_total", [],
        "QUIC handshakes that had to show their address first, because many were under way.";
    HTTP3_FAULTS: Kind::Counter, "springtide_proxy_http3_faults_total", ["scope", "code"],
        "HTTP/3 streams and connections that were ended because the client broke the rules, by error code.";
    TUNNELS: Kind::Gauge, "springtide_proxy_tunnels", [],
        "Upgraded connections (WebSocket) that are open.";
    TUNNEL_BYTES: Kind::Counter, "springtide_proxy_tunnel_bytes_total", [],
        "Bytes carried by upgraded connections, both ways.";
}
