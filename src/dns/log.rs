//! The query log: some of the queries, a JSON object each, written by a thread of its own.
//!
//! A thread that answers hands its lines over without waiting and without waking anybody; the writer comes by. What the
//! writer can't take in time is lost, and counted.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use metrics::Counter;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answer::{Meta, Sent, Standing};
use crate::base::clock::{Clock as _, Mono, SystemClock, Wall};
use crate::observe::names::dns as metric;
use crate::observe::pen::{Pen, Sink};
use crate::snapshot::Published;
use crate::wire::dns::Rcode;
use crate::wire::{name, rdata};

/// Lines that wait for the writer: at a turn of 50 ms some 40,000 a second.
const WAITING: usize = 2_048;
/// How often the writer comes by.
const TURN: Duration = Duration::from_millis(50);

/// One query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    at: Wall,
    client: IpAddr,
    transport: &'static str,
    qname: [u8; name::MAX],
    length: u8,
    rtype: u16,
    rcode: Rcode,
    size: u16,
    truncated: bool,
    standing: Standing,
    /// What a limit made of it.
    limited: Option<&'static str>,
}

impl Line {
    /// The query whose answer stands in `packet`.
    pub(super) fn new(meta: &Meta, packet: &[u8], sent: &Sent, limited: Option<&'static str>) -> Self {
        let mut line = Self {
            at: meta.now,
            client: meta.client,
            transport: meta.transport.as_str(),
            qname: [0; name::MAX],
            length: 0,
            rtype: sent.rtype,
            rcode: sent.rcode,
            size: sent.length as u16,
            truncated: sent.truncated,
            standing: sent.standing,
            limited,
        };
        let qname = sent.qname(packet);
        if let Some(place) = line.qname.get_mut(..qname.len()) {
            place.copy_from_slice(qname);
            line.length = qname.len() as u8;
        }
        line
    }

    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let qname = self.qname.get(..self.length.into()).filter(|n| !n.is_empty());
        let mut line = json!({
            "ms": self.at.0,
            "client": self.client,
            "transport": self.transport,
            "name": qname.map(name::show),
            "type": qname.map(|_| rdata::type_name(self.rtype)),
            "rcode": self.rcode.as_str(),
            "octets": self.size,
        });
        let optional = [
            ("truncated", self.truncated.then_some(Value::Bool(true))),
            ("proven", (self.standing == Standing::Proven).then_some(Value::Bool(true))),
            ("limited", self.limited.map(Value::from)),
        ];
        if let Some(object) = line.as_object_mut() {
            object.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        }
        writeln!(out, "{line}")
    }
}

/// Where lines are handed over; the other end is the writer's.
pub(super) fn channel() -> (SyncSender<Line>, Receiver<Line>) {
    sync_channel(WAITING)
}

/// Writes what comes, to where the published configuration says, until `shutdown`; then what is left.
pub(super) async fn serve(lines: Receiver<Line>, published: Arc<Published>, shutdown: CancellationToken) {
    let (mut writer, mut generations) = (Writer::default(), published.subscribe());
    loop {
        let last = shutdown.is_cancelled();
        let path = {
            let config = &published.load().topology.config;
            config.dns.as_ref().and_then(|d| d.guard.log.as_ref()).map(|l| l.file.clone())
        };
        writer.turn(path.as_deref(), &lines, SystemClock.mono());
        if last {
            return;
        }
        // A pause, not a wait for a line: waking this thread would cost those that answer a syscall. Without a file there is
        // no line, and nothing to do until there is another configuration.
        tokio::select! {
            () = sleep(TURN), if path.is_some() => {}
            Ok(()) = generations.changed(), if path.is_none() => {}
            () = shutdown.cancelled() => {}
        }
    }
}

struct Writer {
    pen: Pen,
    /// The lines of a turn.
    sheet: Vec<u8>,
    written: Counter,
    lost: Counter,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            pen: Pen::new("query log"),
            sheet: Vec::new(),
            written: metric::LOG_LINES.counter(&["written"]),
            lost: metric::LOG_LINES.counter(&["lost"]),
        }
    }
}

impl Writer {
    fn turn(&mut self, path: Option<&Path>, lines: &Receiver<Line>, now: Mono) {
        self.sheet.clear();
        for line in lines.try_iter().take(WAITING) {
            // Into memory: this cannot fail.
            let _ = line.write(&mut self.sheet);
        }
        let sink = path.map(|path| Sink::File(path.to_owned()));
        let done = self.pen.put(sink.as_ref(), &self.sheet, now);
        self.written.increment(done.written);
        self.lost.increment(done.lost);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::dns::fixture::{Ask, world};
    use crate::dns::table::Table;

    fn line(name: &str) -> Line {
        let ask = Ask::new(name, "A");
        let (packet, sent) = ask.of(&Table::compile(&world()));
        Line::new(&ask.meta, &packet, &sent, None)
    }

    #[test]
    fn lines_are_written_lost_and_follow_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.log");
        let (sender, lines) = channel();
        let mut writer = Writer::default();
        let second = |n: u64| Mono::from_millis(n * 1_000);
        sender.try_send(line("HOST.example.test.")).unwrap();
        writer.turn(Some(&path), &lines, second(10));
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        let want = json!({
            "ms": 1_559_731_985_000u64, "client": "198.51.100.7", "transport": "udp", "name": "HOST.example.test.",
            "type": "A", "rcode": "noerror", "octets": read["octets"],
        });
        assert_eq!(read, want);
        // Renamed, as logrotate does it: within a second there is a new one.
        std::fs::rename(&path, dir.path().join("q.log.1")).unwrap();
        sender.try_send(line("nope.example.test.")).unwrap();
        writer.turn(Some(&path), &lines, second(12));
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"rcode\":\"nxdomain\""));
        // A folder that is not there: lost, and nothing waits.
        sender.try_send(line("host.example.test.")).unwrap();
        writer.turn(Some(&dir.path().join("none/q.log")), &lines, second(13));
        assert!(lines.try_recv().is_err());
        // Full: the thread that answers goes on.
        let fits = (0..2 * WAITING).filter(|_| sender.try_send(line("host.example.test.")).is_ok()).count();
        assert_eq!(fits, WAITING);
        writer.turn(Some(&path), &lines, second(14));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1 + WAITING);
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_lost_not_written() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let (sender, lines) = channel();
            let mut writer = Writer::default();
            for turn in 1..=3 {
                (0..100).for_each(|_| sender.try_send(line("host.example.test.")).unwrap());
                writer.turn(Some(Path::new("/dev/full")), &lines, Mono::from_millis(turn));
                assert!(lines.try_recv().is_err(), "nothing waits");
            }
            let text = metrics.render();
            assert!(text.contains("log_lines_total{outcome=\"lost\"} 300"), "{text}");
            assert!(text.contains("log_lines_total{outcome=\"written\"} 0"), "{text}");
        });
    }
}
