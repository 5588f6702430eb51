//! NOTIFY (RFC 1996): "this zone has a new version", and how a secondary says that it has heard.

use super::dns::{HEADER, IN, QNAME, rtype};
use super::zone::Entry;

/// The opcode, where the header has it.
const OPCODE: u8 = 4 << 3;

/// The message that tells of `soa`.
pub fn message(id: u16, soa: &Entry) -> Vec<u8> {
    let [i0, i1] = id.to_be_bytes();
    // Authoritative (section 3.6); one question, one answer.
    let mut packet = vec![i0, i1, OPCODE | 4, 0, 0, 1, 0, 1, 0, 0, 0, 0];
    packet.extend(&soa.owner);
    packet.extend(rtype::SOA.to_be_bytes());
    packet.extend(IN.to_be_bytes());
    packet.extend(QNAME);
    packet.extend(rtype::SOA.to_be_bytes());
    packet.extend(IN.to_be_bytes());
    packet.extend(soa.ttl.to_be_bytes());
    packet.extend((soa.rdata.len() as u16).to_be_bytes());
    packet.extend(&soa.rdata);
    packet
}

/// Whether `packet` says that `message` was heard; `None` where it is no answer to it at all.
pub fn heard(message: &[u8], packet: &[u8]) -> Option<bool> {
    let (sent, got) = (message.first_chunk::<HEADER>()?, packet.first_chunk::<HEADER>()?);
    let ours = sent[..2] == got[..2] && got[2] & 0xf8 == 0x80 | OPCODE;
    ours.then_some(matches!(got[3] & 15, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_answered_by_its_own_header_with_the_answer_bit() {
        let soa = Entry { owner: Box::from(&b"\x01z\0"[..]), rtype: 6, ttl: 5, rdata: Box::from([0; 22]) };
        let sent = message(0x1234, &soa);
        assert_eq!(&sent[..12], b"\x12\x34\x24\0\0\x01\0\x01\0\0\0\0");
        let mut answer = sent.clone();
        assert_eq!(heard(&sent, &answer), None, "our own words");
        answer[2] |= 0x80;
        assert_eq!(heard(&sent, &answer), Some(true));
        answer[3] = 4;
        assert_eq!(heard(&sent, &answer), Some(false));
        answer[0] = 0;
        assert_eq!(heard(&sent, &answer), None);
        assert_eq!(heard(&sent, &[]), None);
    }
}
