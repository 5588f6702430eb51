//! The listening sockets of a process: where they come from, and who has them after it.
//!
//! Whatever listens asks here first. A socket that came with the process (systemd's activation, or a predecessor that makes
//! way for this one) is taken where its address and kind are those that are asked for; everything else is opened anew. A
//! second handle of each is kept for a successor, until the process stops for good.
//!
//! ```text
//!   predecessor: serves ------------------------------ lets go -- drains -- ends
//!   successor:            starts, serves, says so ---> goes on alone ([`Succession`])
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{SockRef, Socket, Type};
use tokio_util::sync::CancellationToken;

use super::listen::{self, ListenError, Share};

/// How many ports are tried where the choice is ours and UDP and TCP have to share one.
const PORT_TRIES: usize = 32;

/// The listening sockets of this process.
#[derive(Debug, Default)]
pub struct Sockets {
    came: Mutex<Vec<Came>>,
    kept: Mutex<Vec<Kept>>,
    succession: Succession,
}

/// Where this process stands between a predecessor and a successor on the same sockets. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    alone: CancellationToken,
    has_heir: Arc<AtomicBool>,
}

impl Succession {
    /// Waits until no predecessor reads from the same sockets. What keeps a conversation over datagrams (QUIC) begins only
    /// then: either would take packets that are the other's.
    pub async fn alone(&self) {
        self.alone.cancelled().await;
    }

    /// Whether no predecessor reads from the same sockets.
    pub fn is_alone(&self) -> bool {
        self.alone.is_cancelled()
    }

    /// The predecessor has let go.
    pub fn succeed(&self) {
        self.alone.cancel();
    }

    /// Whether a successor has them by now: what is not accepted here is accepted there.
    pub fn has_heir(&self) -> bool {
        self.has_heir.load(Relaxed)
    }
}

/// A socket that came with the process and that nobody has asked for yet.
#[derive(Debug)]
struct Came {
    socket: Socket,
    address: SocketAddr,
    is_stream: bool,
    /// Whoever opened it had left the port to the system.
    is_any: bool,
}

/// A second handle of a socket that is in use.
#[derive(Debug)]
struct Kept {
    socket: OwnedFd,
    is_any: bool,
}

impl Sockets {
    /// Sockets that came with the process, each with whether its port was the system's choice. What is no bound TCP or UDP
    /// socket is closed, and said. `follows`: a predecessor serves on them still.
    pub fn inherited(came: Vec<(OwnedFd, bool)>, follows: bool) -> Self {
        let known = came.into_iter().filter_map(|(fd, is_any)| {
            let number = fd.as_raw_fd();
            let socket = Socket::from(fd);
            let seen = || Ok::<_, io::Error>((socket.r#type()?, socket.local_addr()?.as_socket()));
            match seen() {
                Ok((kind, Some(address))) if kind == Type::STREAM || kind == Type::DGRAM => {
                    Some(Came { socket, address, is_stream: kind == Type::STREAM, is_any })
                }
                _ => {
                    tracing::warn!(number, "a descriptor that came with the process is no TCP or UDP socket: closed");
                    None
                }
            }
        });
        let sockets = Self { came: Mutex::new(known.collect()), ..Self::default() };
        if !follows {
            sockets.succession.succeed();
        }
        sockets
    }

    /// Sockets of a process that nothing came with.
    pub fn fresh() -> Self {
        Self::inherited(Vec::new(), false)
    }

    /// Where this process stands between those that have the same sockets.
    pub fn succession(&self) -> Succession {
        self.succession.clone()
    }

    /// A listening TCP socket, as [`listen::tcp`] opens it.
    pub fn tcp(&self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        match self.claim(address, true, 1).pop() {
            Some(socket) => listening(socket, address),
            None => listen::tcp(address, Share::Alone),
        }
        .and_then(|listener| self.keep(listener, "TCP", address))
    }

    /// At least `count` listening TCP sockets on one address, and that address. All that came for it are among them: a
    /// connection waits at one of them, and would be lost with it. Where too few came, more are opened beside them; where that
    /// cannot be (systemd opened it without `ReusePort=`), several handles share one.
    pub fn tcp_each(&self, address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), ListenError> {
        let (bound, sockets) = self.streams(address, count)?;
        let kept = sockets.into_iter().map(|socket| self.keep(socket, "TCP", address)).collect::<Result<_, _>>()?;
        Ok((bound, kept))
    }

    /// The same, with at least as many UDP sockets on the same port, also where that is the system's choice.
    pub fn twins_each(
        &self,
        address: SocketAddr,
        count: usize,
    ) -> Result<(SocketAddr, Vec<TcpListener>, Vec<UdpSocket>), ListenError> {
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let (bound, streams) = self.streams(address, count)?;
            match self.datagrams_noticed(bound, count) {
                Ok(datagrams) => {
                    let streams = streams.into_iter().map(|socket| self.keep(socket, "TCP", address));
                    let datagrams = datagrams.into_iter().map(|socket| self.keep(socket, "UDP", address));
                    return Ok((bound, streams.collect::<Result<_, _>>()?, datagrams.collect::<Result<_, _>>()?));
                }
                Err(ListenError::InUse { .. }) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn streams(&self, address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), ListenError> {
        let came = self.claim(address, true, usize::MAX);
        let mut sockets = came.into_iter().map(|socket| listening(socket, address)).collect::<Result<Vec<_>, _>>()?;
        if sockets.is_empty() {
            // With shared sockets the kernel would let another process of this user join in silence, so the address is
            // first opened without sharing.
            if address.port() != 0 {
                drop(listen::tcp(address, Share::Alone)?);
            }
            sockets.push(listen::tcp(address, Share::Shared)?);
        }
        let first = sockets.first().map(TcpListener::local_addr).transpose();
        let bound = first.map_err(|source| other("TCP", address, source))?.unwrap_or(address);
        while sockets.len() < count {
            let another = listen::tcp(bound, Share::Shared).or_else(|error| {
                let copy = sockets.first().and_then(|first| first.try_clone().ok());
                copy.ok_or(error)
            });
            sockets.push(another?);
        }
        Ok((bound, sockets))
    }

    /// A bound UDP socket, as [`listen::udp`] opens it.
    pub fn udp(&self, address: SocketAddr) -> Result<UdpSocket, ListenError> {
        match self.claim(address, false, 1).pop() {
            Some(socket) => blocking(socket, address),
            None => listen::udp(address, Share::Alone),
        }
        .and_then(|socket| self.keep(socket, "UDP", address))
    }

    /// At least `count` bound UDP sockets on one address, and that address; for what [`Sockets::tcp_each`] is to TCP.
    pub fn udp_each(&self, address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, ListenError> {
        let sockets = self.datagrams(address, count)?;
        sockets.into_iter().map(|socket| self.keep(socket, "UDP", address)).collect()
    }

    /// One TCP and at least `count` UDP sockets on the same port, also where that is the system's choice. TCP is opened first
    /// and alone, so that another process is noticed even where UDP sockets may share their port.
    pub fn pair(&self, address: SocketAddr, count: usize) -> Result<(TcpListener, Vec<UdpSocket>), ListenError> {
        let came = self.claim(address, true, 1).pop();
        let has_come = came.is_some();
        let mut came = came.map(|socket| listening(socket, address)).transpose()?;
        let mut tries = if address.port() == 0 && !has_come { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let stream = came.take().map_or_else(|| listen::tcp(address, Share::Alone), Ok)?;
            let bound = stream.local_addr().map_err(|source| other("TCP", address, source))?;
            match self.datagrams(bound, count) {
                Ok(sockets) => {
                    let sockets = sockets.into_iter().map(|socket| self.keep(socket, "UDP", address));
                    let sockets = sockets.collect::<Result<_, _>>()?;
                    return Ok((self.keep(stream, "TCP", address)?, sockets));
                }
                Err(ListenError::InUse { .. }) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Sockets::datagrams`], and another process on a shared port is noticed.
    fn datagrams_noticed(&self, address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, ListenError> {
        let has_come = lock(&self.came).iter().any(|c| !c.is_stream && c.address == address);
        if count > 1 && !has_come {
            drop(listen::udp(address, Share::Alone)?);
        }
        self.datagrams(address, count)
    }

    fn datagrams(&self, address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, ListenError> {
        let share = if count > 1 { Share::Shared } else { Share::Alone };
        let came = self.claim(address, false, usize::MAX).into_iter();
        let mut sockets = came.map(|socket| blocking(socket, address)).collect::<Result<Vec<_>, _>>()?;
        while sockets.len() < count {
            let another = listen::udp(address, share).or_else(|error| {
                let copy = sockets.first().and_then(|first| first.try_clone().ok());
                copy.ok_or(error)
            });
            sockets.push(another?);
        }
        Ok(sockets)
    }

    /// Closes what came with the process and was not asked for. To be called once everything listens.
    pub fn settle(&self) {
        for left in lock(&self.came).drain(..) {
            let transport = if left.is_stream { "TCP" } else { "UDP" };
            tracing::warn!(address = %left.address, transport, "came with the process, but nothing here listens there: closed");
        }
    }

    /// What goes with a successor: the number of each socket, and whether its port was the system's choice. The numbers are
    /// good while `with` runs.
    pub fn lend<T>(&self, with: impl FnOnce(Vec<(RawFd, bool)>) -> T) -> T {
        let kept = lock(&self.kept);
        with(kept.iter().map(|k| (k.socket.as_raw_fd(), k.is_any)).collect())
    }

    /// A successor serves on them from now on.
    pub fn bequeath(&self) {
        self.succession.has_heir.store(true, Relaxed);
        self.release();
    }

    /// Nobody will have them after this process: they close with whoever uses them.
    pub fn release(&self) {
        lock(&self.kept).clear();
    }

    /// At most `most` of the sockets that came for `address`.
    fn claim(&self, address: SocketAddr, is_stream: bool, most: usize) -> Vec<Socket> {
        let mut came = lock(&self.came);
        let asked = match address.port() {
            0 => came.iter().find(|c| c.is_any && c.is_stream == is_stream && c.address.ip() == address.ip()),
            _ => None,
        }
        .map_or(address, |found| found.address);
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for one in came.drain(..) {
            let fits = one.is_stream == is_stream && one.address == asked && taken.len() < most;
            if fits { taken.push(one.socket) } else { left.push(one) }
        }
        *came = left;
        taken
    }

    /// Keeps a second handle of `socket`, which was asked for as `address`.
    fn keep<S: std::os::fd::AsFd>(
        &self,
        socket: S,
        transport: &'static str,
        address: SocketAddr,
    ) -> Result<S, ListenError> {
        let copy = socket.as_fd().try_clone_to_owned().map_err(|source| other(transport, address, source))?;
        lock(&self.kept).push(Kept { socket: copy, is_any: address.port() == 0 });
        Ok(socket)
    }
}

/// A TCP socket as [`listen::tcp`] gives it.
fn listening(socket: Socket, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let ready = socket.set_nonblocking(true).and_then(|()| socket.listen(listen::BACKLOG));
    ready.map_err(|source| other("TCP", address, source))?;
    Ok(socket.into())
}

/// A UDP socket as [`listen::udp`] gives it: systemd's are not blocking.
fn blocking(socket: Socket, address: SocketAddr) -> Result<UdpSocket, ListenError> {
    let ready = SockRef::from(&socket).set_nonblocking(false);
    ready.map_err(|source| other("UDP", address, source))?;
    Ok(socket.into())
}

const fn other(transport: &'static str, address: SocketAddr, source: io::Error) -> ListenError {
    ListenError::Other { transport, address, source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// What a successor of `sockets` would come with.
    fn next(sockets: &Sockets) -> Sockets {
        let kept = std::mem::take(&mut *lock(&sockets.kept));
        Sockets::inherited(kept.into_iter().map(|k| (k.socket, k.is_any)).collect(), true)
    }

    fn same(a: &impl std::os::fd::AsFd, b: &impl std::os::fd::AsFd) -> bool {
        let id = |s: &dyn std::os::fd::AsFd| {
            let link = format!("/proc/self/fd/{}", s.as_fd().as_raw_fd());
            std::fs::read_link(link).unwrap()
        };
        id(a) == id(b)
    }

    #[test]
    fn a_successor_gets_the_very_sockets() {
        let old = Sockets::fresh();
        let (dns, queries) = old.pair(any(), 2).unwrap();
        let (edge, workers) = old.tcp_each(any(), 2).unwrap();
        let (admin, quic) = (old.tcp(any()).unwrap(), old.udp(any()).unwrap());
        let new = next(&old);
        assert!(!new.succession().is_alone() && old.succession().is_alone());
        let (dns2, queries2) = new.pair(any(), 2).unwrap();
        let (edge2, workers2) = new.tcp_each(edge, 2).unwrap();
        let (admin2, quic2) = (new.tcp(any()).unwrap(), new.udp(any()).unwrap());
        assert!(same(&dns, &dns2) && same(&admin, &admin2) && same(&quic, &quic2));
        assert!(queries.iter().zip(&queries2).all(|(a, b)| same(a, b)) && queries2.len() == 2);
        assert!(workers.iter().zip(&workers2).all(|(a, b)| same(a, b)) && workers2.len() == 2);
        assert_eq!(edge, edge2);
        new.settle();
        assert_eq!(new.lend(|all| all.len()), 7, "and so would its own");
    }

    #[test]
    fn fewer_are_all_used_and_more_are_opened_or_shared() {
        let old = Sockets::fresh();
        let (edge, _workers) = old.tcp_each(any(), 3).unwrap();
        let new = next(&old);
        assert_eq!(new.tcp_each(edge, 1).unwrap().1.len(), 3, "a connection may wait at any of them");
        let (_, more) = next(&new).tcp_each(edge, 5).unwrap();
        assert_eq!(more.len(), 5);
        assert!(!more[1..].iter().any(|one| same(&more[0], one)), "each has a queue of its own");
        // One that was opened to be alone.
        let old = Sockets::fresh();
        let lone = old.tcp(any()).unwrap().local_addr().unwrap();
        let (_, shared) = next(&old).tcp_each(lone, 2).unwrap();
        assert!(same(&shared[0], &shared[1]));
    }

    #[test]
    fn what_nobody_asks_for_is_closed_and_a_port_of_choice_is_not_taken_for_one() {
        let old = Sockets::fresh();
        let fixed = {
            let probe = listen::tcp(any(), Share::Alone).unwrap();
            probe.local_addr().unwrap()
        };
        let held = old.tcp(fixed).unwrap();
        let new = next(&old);
        assert_ne!(new.tcp(any()).unwrap().local_addr().unwrap(), fixed);
        new.settle();
        drop(held);
        assert!(listen::tcp(fixed, Share::Alone).is_ok(), "free again");
    }

    #[test]
    fn released_sockets_close_with_whoever_uses_them() {
        let sockets = Sockets::fresh();
        let listener = sockets.tcp(any()).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(listen::tcp(address, Share::Alone), Err(ListenError::InUse { .. })));
        sockets.release();
        assert!(listen::tcp(address, Share::Alone).is_ok());
    }
}
