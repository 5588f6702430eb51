//! What discovery reads: lists of backends, and answers with SRV records.

use springtide::config::MOST_FOUND;
use springtide::control::discover::list;
use springtide::decide::discover::{Srv, lowest, rule};
use springtide::wire::{lookup, name};

/// Any text as a list of backends: what is read can be called and stands once, what is not has a line; and a list that is
/// written from what was read says the same.
pub fn backend_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match list::read(&text, Some(80), 1) {
        Ok(found) => {
            assert!(found.len() <= MOST_FOUND);
            assert!(found.iter().all(|f| f.address.port() > 0 && !f.address.ip().is_unspecified()));
            let written: Vec<String> = found
                .iter()
                .map(|f| {
                    let name = f.name.as_deref().map(|name| format!(" name={name}")).unwrap_or_default();
                    format!("{} weight={}{name}", f.address, f.weight)
                })
                .collect();
            assert_eq!(list::read(&written.join("\n"), None, 7).as_ref(), Ok(&found));
            let known = found.get(..found.len() / 2).unwrap_or_default();
            let ruling = rule(Some(&found), known, |_| false, false);
            assert!(ruling.list.len() * 2 >= found.len());
        }
        Err(mistake) => assert!(mistake.line >= 1),
    }
}

/// Any octets as the answer to a question for SRV records: targets are names, and of the lowest priority alone.
pub fn srv_answer(data: &[u8]) {
    let query = lookup::query(b"\x01a\x01t\0", 33, 7, 9, &[]);
    let mut packet = query[..query.len() - 11].to_vec();
    packet[2] = 0x80;
    packet[7] = data.first().map_or(0, |n| n % 8);
    packet[11] = 0;
    packet.extend(data.iter().skip(1));
    if let Some(lookup::Found::Records { rdatas, .. }) = lookup::read(&query, &packet, 33) {
        let records: Vec<Srv> = rdatas.iter().filter_map(|data| Srv::read(data)).collect();
        assert_eq!(records.len(), rdatas.len(), "each was read whole");
        for (srv, _) in lowest(&records, 1) {
            assert_eq!(name::octets(&srv.target), Some(srv.target.len()));
            assert!(
                records
                    .iter()
                    .all(|other| { other.priority >= srv.priority || other.port == 0 || *other.target == [0] })
            );
        }
    }
    lookup::read(&query, data, 33);
}
