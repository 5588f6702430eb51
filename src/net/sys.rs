//! System calls that the standard library lacks: datagrams in batches. The one place where unsafe code is allowed.
//!
//! A [`Batch`] is a set of buffers with the headers that `recvmmsg` and `sendmmsg` want, set up once. Answers leave from the
//! buffers and with the headers that the queries came in, so a batch costs two system calls and no copy. Knows nothing of DNS.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, two socket options, inheritance and openat2 have no safe wrapper in our dependencies"
)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{c_int, c_void, iovec, mmsghdr, sa_family_t, sockaddr_in, sockaddr_in6, socklen_t};

pub mod beneath;
pub mod descriptors;

/// Datagrams in a batch; 64 measure no better than 16 (gdnsd's width).
pub const WIDTH: usize = 16;
/// Octets of a buffer: more than the largest query that makes sense, and than the largest answer. No power of two, or the
/// fronts of all buffers would share a few lines of the cache.
pub const ROOM: usize = 4_096 + 64;
/// Octets for control messages: one `in_pktinfo` or `in6_pktinfo` with its header.
const CONTROL: usize = 64;

/// Buffers for a batch of datagrams, with their addresses.
#[derive(Debug)]
pub struct Batch {
    // Each header points at its own place in the other boxes, for ever: boxes never move, and each is as long as `WIDTH`.
    headers: Box<[mmsghdr; WIDTH]>,
    rooms: Box<[iovec; WIDTH]>,
    peers: Box<[Peer; WIDTH]>,
    control: Box<[Control; WIDTH]>,
    buffers: Box<[[u8; ROOM]; WIDTH]>,
    /// The place in those boxes of each header: what is queued moves to the front, and takes its place along.
    places: [usize; WIDTH],
    received: usize,
    queued: usize,
    with_control: bool,
}

/// An address of an internet family: two of them to a line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
union Peer {
    family: sa_family_t,
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address().fmt(f)
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// One datagram of a batch.
#[derive(Debug)]
pub struct Datagram<'b> {
    /// The whole buffer; the datagram is its first `length` octets.
    pub buffer: &'b mut [u8],
    /// How long the datagram is.
    pub length: usize,
    /// Who sent it.
    pub from: IpAddr,
}

impl Batch {
    /// Buffers for `socket`. On a socket that is bound to no address in particular, each answer leaves from the address that
    /// its query was sent to.
    pub fn new(socket: &UdpSocket) -> io::Result<Self> {
        let with_control = socket.local_addr()?.ip().is_unspecified();
        if with_control {
            want_destination(socket)?;
        }
        // SAFETY: these are plain C structures, for which all zeroes is a valid value.
        let (headers, rooms, peers) =
            unsafe { (boxed::<[mmsghdr; WIDTH]>(), boxed::<[iovec; WIDTH]>(), boxed::<[Peer; WIDTH]>()) };
        let mut batch = Self {
            headers,
            rooms,
            peers,
            control: Box::new([Control([0; CONTROL]); WIDTH]),
            buffers: vec![[0; ROOM]; WIDTH].into_boxed_slice().try_into().map_err(|_| io::ErrorKind::OutOfMemory)?,
            places: std::array::from_fn(|i| i),
            received: WIDTH,
            queued: 0,
            with_control,
        };
        for i in 0..WIDTH {
            batch.rooms[i].iov_base = batch.buffers[i].as_mut_ptr().cast::<c_void>();
            let header = &mut batch.headers[i].msg_hdr;
            header.msg_iov = &raw mut batch.rooms[i];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut batch.peers[i]).cast();
            if with_control {
                header.msg_control = batch.control[i].0.as_mut_ptr().cast();
            }
        }
        Ok(batch)
    }

    /// Waits for the first datagram, then takes those that are there already; gives their number. Forgets the batch before.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's timeout has passed, `Interrupted`, and what else `recvmmsg` knows.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // What the batch before has used is made ready again.
        let used = std::mem::take(&mut self.received);
        self.queued = 0;
        for (message, place) in self.headers.iter_mut().zip(self.places).take(used) {
            self.rooms[place].iov_len = ROOM;
            message.msg_hdr.msg_namelen = size_of::<Peer>() as socklen_t;
            if self.with_control {
                message.msg_hdr.msg_controllen = CONTROL as _;
            }
        }
        // SAFETY: every header points at a buffer, an address and a control area of `self`, which outlive the call and whose
        // lengths are stated; `WIDTH` is the length of the array.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                WIDTH as u32,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        self.received = usize::try_from(got).map_err(|_| io::Error::last_os_error())?.min(WIDTH);
        Ok(self.received)
    }

    /// Datagram `index` of those received; `None` beyond them, and where the sender's address is of no internet family.
    pub fn datagram(&mut self, index: usize) -> Option<Datagram<'_>> {
        let message = self.headers.get(index).filter(|_| index < self.received)?;
        let place = *self.places.get(index)?;
        let from = self.peers.get(place)?.address()?;
        let length = (message.msg_len as usize).min(ROOM);
        let buffer = self.buffers.get_mut(place)?;
        Some(Datagram { buffer, length, from })
    }

    /// Queues the first `length` octets of the buffer of datagram `index` as the answer to its sender. Answers are queued in
    /// the order of their datagrams, each once; what comes before is done with.
    pub fn reply(&mut self, index: usize, length: usize) {
        let slot = self.queued;
        if index >= self.received || slot > index {
            return;
        }
        if slot < index {
            self.headers.swap(slot, index);
            self.places.swap(slot, index);
        }
        let place = self.places[slot];
        self.rooms[place].iov_len = length.min(ROOM);
        if self.with_control {
            // What came as "sent to" goes back as "send from": the kernel reads the same structure either way.
            forget_interface(&mut self.control[place], self.headers[slot].msg_hdr.msg_controllen);
        }
        self.queued += 1;
    }

    /// Sends what is queued, without waiting; gives how many could not be sent.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let (mut at, mut unsent) = (0, 0);
        while at < self.queued {
            // SAFETY: headers `at..queued` point at buffers and addresses of `self`, which outlive the call and whose lengths are stated.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(at),
                    (self.queued - at) as u32,
                    libc::MSG_DONTWAIT as _,
                )
            };
            match usize::try_from(sent) {
                Ok(n) if n > 0 => at += n,
                _ => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => {}
                    // The send buffer is full: the rest would fare no better.
                    io::ErrorKind::WouldBlock => {
                        unsent += self.queued - at;
                        break;
                    }
                    // This one can't be sent (no route, a port of 0); the next one may.
                    _ => {
                        at += 1;
                        unsent += 1;
                    }
                },
            }
        }
        self.queued = 0;
        unsent
    }
}

/// Turns path-MTU work off for `socket`: our answers fit, and a forged ICMP message must not shrink them
/// (`IP_PMTUDISC_OMIT`; draft-ietf-dnsop-avoid-fragmentation, RFC 9715 section 3.1).
pub fn omit_path_mtu(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()?.ip() {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT),
    }
}

/// Asks the kernel to say which address each datagram was sent to.
fn want_destination(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()?.ip() {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Has the kernel deal QUIC packets to the sockets that share the address of `socket`, of which there are `of`, by the first two
/// octets of the id of the connection that each is for (RFC 8999 section 5), modulo `of`.
pub fn steer_quic(socket: &UdpSocket, of: u16) -> io::Result<()> {
    const fn step(code: u32, k: u32, jt: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf: 0, k }
    }
    use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_JA, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET};
    let mut program = [
        step(BPF_LD | BPF_B | BPF_ABS, 0, 0),
        // A long header has a version and a length before the id.
        step(BPF_JMP | BPF_JSET | BPF_K, 0x80, 2),
        step(BPF_LD | BPF_H | BPF_ABS, 1, 0),
        step(BPF_JMP | BPF_JA, 1, 0),
        step(BPF_LD | BPF_H | BPF_ABS, 6, 0),
        step(BPF_ALU | BPF_MOD | BPF_K, u32::from(of.max(1)), 0),
        step(BPF_RET | BPF_A, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives through the call and whose length is stated.
    let done = unsafe {
        let size = size_of::<libc::sock_fprog>() as socklen_t;
        let option = libc::SO_ATTACH_REUSEPORT_CBPF;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const program).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: &UdpSocket, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: `value` lives through the call and its size is stated.
    let done = unsafe {
        let size = size_of::<c_int>() as socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Clears the interface in a packet-info message, so that the route decides by which one the answer leaves. IPv6 keeps it:
/// a link-local address means nothing without it.
fn forget_interface(control: &mut Control, length: usize) {
    let header = size_of::<libc::cmsghdr>();
    let Some(head) = control.0.first_chunk::<16>() else { return };
    let level = i32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
    let index = header..header + 4;
    if level == libc::IPPROTO_IP
        && length >= header + size_of::<libc::in_pktinfo>()
        && let Some(index) = control.0.get_mut(index)
    {
        index.fill(0);
    }
}

impl Peer {
    fn address(&self) -> Option<IpAddr> {
        // SAFETY: every address begins with its family, which the kernel has written, or which is zero; it says which of the
        // structures the rest is, and either is valid whatever octets it holds.
        unsafe {
            match c_int::from(self.family) {
                libc::AF_INET => Some(Ipv4Addr::from(u32::from_be(self.v4.sin_addr.s_addr)).into()),
                libc::AF_INET6 => Some(Ipv6Addr::from(self.v6.sin6_addr.s6_addr).into()),
                _ => None,
            }
        }
    }
}

/// A zeroed value on the heap.
///
/// # Safety
/// All zeroes must be a valid `T`.
unsafe fn boxed<T>() -> Box<T> {
    let zeroed = Box::new(MaybeUninit::<T>::zeroed());
    // SAFETY: the caller vouches for it.
    unsafe { zeroed.assume_init() }
}

/// The time since an arbitrary moment of this boot, the same for all processes (`CLOCK_MONOTONIC`): what systemd wants to hear.
pub fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, to a place that lives and is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Raises the limit of open descriptors to what the system allows this process, and gives what it is now. An edge, a name
/// server and a thousand probes share it; the usual soft limit of 1024 is made for programs that call `select`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = descriptors()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads one rlimit, from a place that lives and is ours.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> io::Result<u64> {
    Ok(descriptors()?.rlim_cur)
}

fn descriptors() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit, to a place that lives and is ours.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(bind: &str) -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind(bind).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        omit_path_mtu(&server).unwrap();
        let loopback = if server.local_addr().unwrap().is_ipv4() { "127.0.0.1" } else { "::1" };
        let client = UdpSocket::bind((loopback, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.connect((loopback, server.local_addr().unwrap().port())).unwrap();
        (server, client)
    }

    #[test]
    fn a_batch_comes_in_and_answers_go_back_from_the_same_buffers() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let (server, client) = pair(bind);
            let mut batch = Batch::new(&server).unwrap();
            for round in 0..3u8 {
                for i in 0..5u8 {
                    client.send(&[round, i, 0]).unwrap();
                }
                let mut seen = 0;
                while seen < 5 {
                    let got = batch.receive(&server).unwrap();
                    for index in 0..got {
                        let datagram = batch.datagram(index).unwrap();
                        assert!(datagram.from.is_loopback() && datagram.length == 3);
                        datagram.buffer[2] = 7;
                        let odd = datagram.buffer[1] % 2 == 1;
                        if odd {
                            batch.reply(index, 3);
                        }
                    }
                    assert!(batch.datagram(got).is_none());
                    assert_eq!(batch.send(&server), 0);
                    seen += got;
                }
                let mut buffer = [0; 16];
                // The client is connected: an answer from another address would not arrive.
                for odd in [1, 3] {
                    assert_eq!(client.recv(&mut buffer).unwrap(), 3, "{bind}");
                    assert_eq!(buffer[..3], [round, odd, 7]);
                }
            }
        }
    }

    #[test]
    fn everyone_gets_their_own_whoever_is_left_out() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let (server, first) = pair(bind);
            let mut clients = vec![first];
            let to = clients[0].peer_addr().unwrap();
            for _ in 1..WIDTH {
                let client = UdpSocket::bind((to.ip(), 0)).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                client.connect(to).unwrap();
                clients.push(client);
            }
            let mut batch = Batch::new(&server).unwrap();
            // By bits: who is answered in a round.
            for answered in [0xffff_u16, 0xaaaa, 0x0001, 0x8000, 0x0ff0, 0x7001, 0xffff] {
                for (i, client) in clients.iter().enumerate() {
                    client.send(&vec![i as u8; i + 1]).unwrap();
                }
                let mut seen = 0;
                while seen < WIDTH {
                    let got = batch.receive(&server).unwrap();
                    for index in 0..got {
                        let datagram = batch.datagram(index).unwrap();
                        let who = usize::from(datagram.buffer[0]);
                        assert_eq!(datagram.length, who + 1);
                        datagram.buffer[..=2 * who].fill(who as u8);
                        if answered & 1 << who != 0 {
                            batch.reply(index, 2 * who + 1);
                        }
                    }
                    assert_eq!(batch.send(&server), 0);
                    seen += got;
                }
                for (who, client) in clients.iter().enumerate().filter(|(i, _)| answered & 1 << i != 0) {
                    let mut buffer = [0; 64];
                    let length = client.recv(&mut buffer).unwrap();
                    assert_eq!(&buffer[..length], vec![who as u8; 2 * who + 1], "{bind} {answered:x}");
                }
            }
            for client in clients {
                client.set_nonblocking(true).unwrap();
                assert_eq!(client.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
        }
    }

    #[test]
    fn waiting_ends_with_the_sockets_timeout() {
        let (server, _client) = pair("127.0.0.1:0");
        server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = Batch::new(&server).unwrap().receive(&server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn wildcard_answers_leave_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut batch = Batch::new(&server).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let asked = std::net::SocketAddr::from(([127, 0, 77, 7], server.local_addr().unwrap().port()));
        client.send_to(b"?", asked).unwrap();
        assert_eq!(batch.receive(&server).unwrap(), 1);
        batch.reply(0, 1);
        assert_eq!(batch.send(&server), 0);
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (1, asked));
    }
}
