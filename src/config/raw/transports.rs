//! How the name server is reached beside UDP and plain TCP, and what a connection may cost.

use super::super::kinds::{Count, List};
use super::super::reader::section;
use super::super::words::{File, Listen, Prefix, Time, UrlPath};
use super::HOUR;

section! {
    /// Limits of the name server's connections. TCP, TLS, HTTPS and QUIC have them each for itself, so that a flood over
    /// one of them closes none of the others. A reload changes them for connections that come in after it.
    DnsTcp {
        /// Connections in all. One more, and the one that has been idle longest makes room.
        connections: Count<1, 1_000_000> = 1_024,
        /// Connections of one client: an IPv4 address, or a /56 of IPv6. One more, and its own idlest makes room.
        per_client: Count<1, 1_000_000> = 128,
        /// How long a connection may stand without a whole query; also what `edns-tcp-keepalive` (RFC 7828) promises.
        idle: Time<100, HOUR> = "15s",
        /// How long a client may take to take its answers.
        write: Time<100, HOUR> = "5s",
        /// How long a PROXY header and a TLS handshake may take together.
        handshake: Time<100, 60_000> = "5s",
    } synonyms {
        max: "connections", max_connections: "connections", clients: "connections", max_per_client: "per_client",
        timeout: "idle", idle_timeout: "idle", keepalive: "idle", write_timeout: "write",
        handshake_timeout: "handshake",
    }
}

section! {
    /// An encrypted way to the name server. Its files are read again with every reload.
    DnsSecure {
        /// Where it listens.
        listen: List<Listen, 64> = required,
        /// The certificate chain, PEM, the server's own first.
        cert: File = required,
        /// Its private key, PEM.
        key: File = required,
    } later {
        acme: "certificates are not requested yet: put the files there and reload",
        client_ca: "clients are not asked for certificates yet",
    } synonyms {
        address: "listen", bind: "listen", port: "listen", certs: "cert", certificate: "cert", chain: "cert", keys: "key",
        private_key: "key",
    }
}

section! {
    /// DNS over HTTPS (RFC 8484), HTTP/2 and HTTP/1.1. Its files are read again with every reload.
    DnsHttps {
        /// Where it listens.
        listen: List<Listen, 64> = required,
        /// The certificate chain, PEM, the server's own first.
        cert: File = required,
        /// Its private key, PEM.
        key: File = required,
        /// The path that is asked.
        path: UrlPath = "/dns-query",
    } later {
        acme: "certificates are not requested yet: put the files there and reload",
        http3: "HTTP/3 is not served yet: HTTP/1.1 and HTTP/2 are",
    } synonyms {
        address: "listen", bind: "listen", port: "listen", certs: "cert", certificate: "cert", chain: "cert", keys: "key",
        private_key: "key", url: "path", endpoint: "path", uri: "path",
    }
}

section! {
    /// Balancers in front that say by the PROXY protocol (versions 1 and 2) whom they speak for.
    DnsProxies {
        /// Their addresses. Each of their connections over TCP, TLS or HTTPS must begin with the header; the header of
        /// anybody else is no query, and is not believed.
        trusted: List<Prefix, 4_096> = required,
    } later {
        udp: "the PROXY protocol is spoken over TCP, TLS and HTTPS, not over UDP",
    } synonyms {
        from: "trusted", allow: "trusted", trusted_proxies: "trusted", prefixes: "trusted",
    }
}
