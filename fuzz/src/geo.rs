//! Where clients are: octets as databases, texts as lists of prefixes.

use springtide::base::prefix::runs::Runs;
use springtide::wire::cidr;
use springtide::wire::mmdb::Mmdb;

/// A database of anybody: it is refused, or walked in bounded time, in order, and every record of it read or refused.
pub fn mmdb(data: &[u8]) {
    let Ok(file) = Mmdb::open(data) else { return };
    let (mut runs, mut records, mut last) = (Runs::default(), Vec::new(), None);
    let walked = file.walk(|first, record| {
        assert!(last.is_none_or(|last| last < first), "networks come in order");
        last = Some(first);
        runs.append(first, record);
        records.extend(record);
    });
    assert!(records.len() <= data.len() * 8 + 4_096, "no more networks than visits");
    if walked.is_ok() {
        assert!(runs.at([0, 0, 0, 0].into()).is_some() && runs.at([255; 16].into()).is_some(), "all of it is covered");
    }
    records.sort_by_key(|record| format!("{record:?}"));
    records.dedup();
    for record in records.into_iter().take(1_000) {
        let _ = file.place(record);
    }
}

/// A list of prefixes: entries that stand in the text, or findings with lines of it.
pub fn cidr(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count() as u32;
    match cidr::parse(&text) {
        Ok(entries) => {
            assert!(
                entries.iter().all(|e| e.line <= lines && e.net.trunc() == e.net && e.classes().all(|c| !c.is_empty()))
            );
            let runs = Runs::nested(entries.iter().map(|e| (e.net, e.line)), 0);
            for entry in entries.iter().take(64) {
                let longest =
                    entries.iter().filter(|e| e.net.contains(&entry.net.network())).max_by_key(|e| e.net.prefix_len());
                assert_eq!(runs.at(entry.net.network()), longest.map(|e| e.line));
            }
        }
        Err(wrong) => assert!(!wrong.is_empty() && wrong.iter().all(|(line, _)| (1..=lines).contains(line))),
    }
}
