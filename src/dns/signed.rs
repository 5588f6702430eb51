//! Queries that carry a signature (TSIG, RFC 8945), whatever they ask: verified, answered as any other, and signed.
//!
//! Secondaries sign even the question whether there is a new version. This is no hot path: it allocates and hashes.

use super::answer::{Meta, Outcome, Sent, Standing, answer_in_place, bare};
use super::table::Table;
use super::transfer::verify;
use crate::wire::dns::{HEADER, MAX_TCP, Query};

/// Answers the query that the first `length` octets of `packet` hold, whose signature begins at `start`.
pub(super) fn answer_signed(
    table: &Table,
    packet: &mut [u8],
    length: usize,
    start: usize,
    query: &Query,
    limit: usize,
    meta: &Meta,
) -> Outcome {
    let request = packet.get(..length).unwrap_or_default().to_vec();
    let now = meta.now.0 / 1_000;
    let limit = limit.min(packet.len()).min(MAX_TCP);
    match verify(&request, start, &table.fixed.keys, now) {
        Ok((_, mut signer)) => {
            // Without its signature it is a query like any other, with a little less room for the answer.
            unsign(packet);
            let Some(room) = packet.get_mut(..limit.saturating_sub(signer.octets()).max(start)) else {
                return bare(packet, crate::wire::dns::Rcode::ServFail);
            };
            match answer_in_place(table, room, start, meta) {
                Outcome::Send(sent) => match signer.sign(packet, sent.length, now, None) {
                    // Who knows a secret of ours is nobody's victim.
                    Some(length) => Outcome::Send(Sent { length, standing: Standing::Proven, ..sent }),
                    None => bare(packet, crate::wire::dns::Rcode::ServFail),
                },
                dropped @ Outcome::Drop(_) => dropped,
            }
        }
        Err(fault) => {
            let (length, rcode) = fault.answer(packet, limit, query, now);
            Outcome::Send(Sent { rtype: query.rtype, question_end: query.question_end, ..Sent::bare(length, rcode) })
        }
    }
}

/// Takes the signature out of the count: it is the last record.
fn unsign(packet: &mut [u8]) {
    if let Some(header) = packet.first_chunk_mut::<HEADER>() {
        let additional = u16::from_be_bytes([header[10], header[11]]).saturating_sub(1);
        [header[10], header[11]] = additional.to_be_bytes();
    }
}
