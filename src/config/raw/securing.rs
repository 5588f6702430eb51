//! TLS at both ends, who must show a certificate, and who may speak for others.

use super::super::kinds::{Flag, List, Or, Yes};
use super::super::model::{ClientCertificate, PassOn, TlsVersion};
use super::super::reader::section;
use super::super::words::{File, Host, Text, Time};
use super::{MINUTE, WEEK};

section! {
    /// Certificates of a listener. SNI chooses among them; the first serves those who send none. All files are read again
    /// with every reload, and hold for the connections that come in after it.
    ListenerTls {
        /// Certificate chains, PEM.
        certs: List<File, 1_024> = required,
        /// Their private keys, PEM, in the same order.
        keys: List<File, 1_024> = required,
        /// The oldest version that is spoken: `1.2` or `1.3`.
        min_version: TlsVersion = "1.2",
        /// Whether the post-quantum key exchange X25519MLKEM768 is offered, and preferred where a client offers it too.
        post_quantum: Flag = true,
        /// Keys of session tickets, shared by a fleet: a client resumes at any of its nodes. Without it this process makes up
        /// keys of its own and changes them every six hours.
        tickets: Tickets = optional,
        /// Files with the authorities that clients' certificates are verified against, PEM.
        client_ca: List<File, 64> = [],
        /// Whether a client has to show a certificate: `require` refuses the handshake of one that has none, `request` lets
        /// it in and leaves it to the routes (`require`). One that cannot be verified is refused in either case.
        client_certificate: ClientCertificate = "require",
        /// Files with lists of revoked client certificates, PEM or DER. A certificate whose authority has no list here passes.
        crl: List<File, 64> = [],
        /// What backends are told of a verified certificate: `identity` (`X-Client-Cert-Subject`, `X-Client-Cert-San`,
        /// `X-Client-Cert-Fingerprint`), `certificate` (the same, and all of it as `Client-Cert` of RFC 9440) or `nothing`.
        /// What clients themselves send in these fields never passes.
        pass_on: PassOn = "identity",
    } later {
        acme: "certificates are not requested yet: put the files there and reload",
        max_version: "the newest version is always spoken",
        ciphers: "the suites of TLS 1.2 and 1.3 that are left are all good; `min_version = \"1.3\"` leaves three of them",
    } synonyms {
        cert: "certs", key: "keys", certificate: "certs", certificates: "certs", chain: "certs",
        minimum_version: "min_version", protocols: "min_version", pq: "post_quantum", groups: "post_quantum",
        curves: "post_quantum", ticket_keys: "tickets", session_tickets: "tickets", client_cas: "client_ca",
        ca: "client_ca", client_auth: "client_certificate", verify_client: "client_certificate",
        mtls: "client_certificate", crls: "crl", revoked: "crl", forward: "pass_on",
    }
}

section! {
    /// Keys of session tickets, shared by a fleet.
    Tickets {
        /// The file: a key of 64 hexadecimal digits a line, `#` begins a remark. The first key makes tickets, all of them
        /// open some. `springtide keys tickets FILE` makes and rotates it. Read again with every reload.
        file: File = required,
        /// How long a session may be resumed after its ticket was made.
        lifetime: Time<MINUTE, WEEK> = "12h",
    } synonyms {
        path: "file", keys: "file", key_file: "file", ttl: "lifetime", timeout: "lifetime",
    }
}

section! {
    /// TLS towards backends. Its files are read again with every reload, and hold for connections that are made after it.
    UpstreamTls {
        /// The name to verify and to send as SNI.
        name: Host = required,
        /// File with the authorities to trust, PEM.
        ca: File = required,
        /// Our own certificate for backends that ask for one: the chain, PEM.
        certificate: File = optional,
        /// Its private key, PEM.
        key: File = optional,
    } synonyms {
        server_name: "name", sni: "name", ca_file: "ca", roots: "ca", cert: "certificate", client_certificate: "certificate",
        client_cert: "certificate", client_key: "key", private_key: "key",
    }
}

section! {
    /// What a request must bring beside what it asks for. One that does not is refused with 403.
    Require {
        /// A verified certificate of the client: `true` for any, `{ san = [...] }` for one with such a name. Its listener
        /// has to ask for certificates (`tls.client_ca`).
        client_certificate: Or<Yes, Holder> = required,
    } synonyms {
        client_cert: "client_certificate", certificate: "client_certificate", mtls: "client_certificate",
    }
}

section! {
    /// Whose certificate it must be.
    Holder {
        /// Alternative names of the subject, one of which it must have: a DNS name (`*.` for one label before it), a URI such
        /// as a SPIFFE id, an email address or an IP address.
        san: List<Text, 256> = required,
    } later {
        subject: "subjects are not compared: issue certificates with a `subjectAltName`",
        cn: "subjects are not compared: issue certificates with a `subjectAltName`",
        fingerprint: "certificates are not pinned: name the holder in `san`",
    } synonyms {
        sans: "san", name: "san", names: "san", dns: "san", uri: "san",
    }
}
