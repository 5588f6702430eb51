//! What the name server does against abuse, and what it tells of itself.

use super::super::kinds::{Count, Flag, List};
use super::super::reader::section;
use super::super::words::{File, Prefix, Rate, Sampling, Time};
use super::MINUTE;

section! {
    /// DNS cookies (RFC 7873, 9018): who shows one of ours has received an answer before, and is never rate-limited.
    Cookies {
        /// The secrets of the whole fleet, 32 hexadecimal digits a line: the first makes cookies, all of them (three at
        /// most) check. The format is that of NSD and unbound. Without it this process makes up a secret of its own.
        key_file: File = optional,
        /// Whether a client that speaks cookies is answered only when it shows one of ours (with BADCOOKIE, and the right
        /// cookie, until then). Clients that do not speak cookies are answered.
        require: Flag = false,
    } synonyms {
        file: "key_file", secret_file: "key_file", secret: "key_file", cookie_secret: "key_file",
    }
}

section! {
    /// Limits of answers over UDP by client prefix, against forged queries. Clients with a valid cookie, TCP and everything
    /// on top of it are never limited.
    RateLimit {
        /// Answers with NOERROR that one prefix gets.
        per_prefix: Rate = required,
        /// NXDOMAIN answers that one prefix gets. By default as many as `per_prefix`.
        nxdomains: Rate = optional,
        /// Answers with any other rcode that one prefix gets. By default as many as `per_prefix`.
        errors: Rate = optional,
        /// Answers of all kinds that one prefix gets. By default each kind counts by itself.
        all: Rate = optional,
        /// What may come at once: so long a time's worth of answers.
        window: Time<10, MINUTE> = "1s",
        /// One of so many limited answers goes out without records, so that an honest client comes again over TCP or with
        /// its cookie; 1 sends all of them so, 0 none.
        slip: Count<0, 100> = 2,
        /// Bits of an IPv4 address that count as one client.
        prefix_v4: Count<8, 32> = 24,
        /// Bits of an IPv6 address that count as one client.
        prefix_v6: Count<16, 128> = 56,
        /// Who is never limited.
        exempt: List<Prefix, 1_024> = [],
        /// Limits nobody, but counts who would be.
        dry_run: Flag = false,
    } synonyms {
        rate: "per_prefix", responses_per_second: "per_prefix", ratelimit: "per_prefix", exempt_clients: "exempt",
        whitelist: "exempt", log_only: "dry_run",
    }
}

section! {
    /// The query log. A line that does not fit is lost and counted: queries never wait for a disk.
    QueryLog {
        /// How many of the queries are written, such as `"1/1000"`; `"1/1"` is all of them.
        sample: Sampling = "1/1000",
        /// Where to: one JSON object a line, appended. Renamed or removed, it is made anew within a second.
        file: File = required,
    } synonyms {
        rate: "sample", path: "file",
    }
}
