//! What a service tells systemd of itself (sd_notify(3)): datagrams of `NAME=value` lines to the socket in `NOTIFY_SOCKET`.
//!
//! Without such a socket nothing is told, and nothing else differs. A manager that does not listen stops nobody: the
//! datagram is dropped.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::sys;

/// The line to whoever manages this process as a service.
#[derive(Debug, Default)]
pub struct Manager {
    line: Option<(UnixDatagram, SocketAddr)>,
    /// Within what time it wants to hear that we live.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names, if it names one.
    pub fn of_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(&name).ok(),
            _ => None,
        });
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&us| is_ours && us > 0).map(Duration::from_micros);
        let open = |address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        };
        Self { line: address.and_then(open), watchdog }
    }

    /// How often to say that we live: half the time that it waits for. `None`: it does not ask.
    pub fn watchdog(&self) -> Option<Duration> {
        self.line.as_ref().and(self.watchdog).map(|limit| limit / 2)
    }

    /// This process serves, and does `what`.
    pub fn ready(&self, what: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(what)));
    }

    /// This process reads its configuration again, and is ready when it says so again.
    pub fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", sys::monotonic().as_micros()));
    }

    /// This process ends.
    pub fn stopping(&self, what: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", line(what)));
    }

    /// The service goes on in process `pid`.
    pub fn goes_on_in(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    /// This process lives.
    pub fn lives(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.line
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// `text` as one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_and_nobody_waits_for_who_does_not_listen() {
        let name = format!("springtide-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.set_nonblocking(true).unwrap();
        let manager = Manager { line: Some((ours, address)), watchdog: Some(Duration::from_secs(4)) };
        let hear = || {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(manager.watchdog(), Some(Duration::from_secs(2)));
        manager.ready("serving\nSTOPPING=1");
        assert_eq!(hear(), "READY=1\nSTATUS=serving STOPPING=1", "a status is one line");
        manager.reloading();
        let reloading = hear();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        manager.goes_on_in(42);
        assert_eq!(hear(), "MAINPID=42");
        // Its queue fills; it is not read.
        (0..10_000).for_each(|_| manager.lives());
        drop(socket);
        manager.stopping("gone");
        Manager::default().ready("nobody asked");
    }
}
