//! The sockets of an address: UDP several times, so that every thread has a queue of its own (SO_REUSEPORT), and TCP.

use crate::upstream;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// How many threads answer an address at most: a few keep any number of clients of one machine busy.
const MOST_THREADS: usize = 4;
/// How many free ports are tried to find one that is free for both UDP and TCP.
const ATTEMPTS: usize = 32;
/// Room for datagrams that wait, in bytes; the system may give less.
const WAITING: usize = 1 << 20;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 256;

/// Bound sockets whose clients are treated alike.
#[derive(Debug)]
pub struct Listener {
    /// Each is answered by a thread of its own.
    pub udp: Vec<UdpSocket>,
    /// On the same address as `udp`.
    pub tcp: TcpListener,
    /// Who is asked for names outside all zones; `None`: they are refused.
    pub upstream: Option<upstream::Servers>,
}

impl Listener {
    /// The same port for UDP and TCP, also when the system picks it (port 0).
    ///
    /// # Errors
    /// The address is not this machine's, in use, or not allowed.
    pub fn bind(address: SocketAddr, upstream: Option<upstream::Servers>) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            // TCP first: it is refused where another server is, with UDP sockets that could be shared.
            let tcp = tcp(
                Socket::new(Domain::for_address(address), Type::STREAM, None)?,
                address,
            )?;
            let at = tcp.local_addr()?;
            let sockets = (0..threads()).map(|_| Socket::new(Domain::for_address(at), Type::DGRAM, None));
            match sockets.map(|socket| udp(socket?, at)).collect::<io::Result<_>>() {
                Ok(udp) => return Ok(Self { udp, tcp, upstream }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {
                    attempt += 1;
                    if attempt > ATTEMPTS {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// With sockets that are made but not bound, for an address of the network that they were made in. Each of `udp` gets
    /// a thread; [`threads`] are enough.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_these(
        address: SocketAddr,
        unbound: Unbound,
        upstream: Option<upstream::Servers>,
    ) -> io::Result<Self> {
        let tcp = tcp(unbound.tcp.into(), address)?;
        let at = tcp.local_addr()?;
        let sockets = unbound.udp.into_iter().map(|socket| udp(socket.into(), at));
        Ok(Self {
            udp: sockets.collect::<io::Result<_>>()?,
            tcp,
            upstream,
        })
    }

    /// The address, with the port that the system picked.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Sockets that are not bound yet.
#[derive(Debug)]
pub struct Unbound {
    /// A stream socket.
    pub tcp: OwnedFd,
    /// Datagram sockets.
    pub udp: Vec<OwnedFd>,
}

/// How many threads answer an address on this machine.
pub fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(1, MOST_THREADS)
}

fn tcp(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    // A port whose connections have just been closed can be had again at once.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn udp(socket: Socket, address: SocketAddr) -> io::Result<UdpSocket> {
    socket.set_reuse_port(true)?;
    // What the system does not give is no reason not to answer.
    let _ = socket.set_recv_buffer_size(WAITING);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_and_tcp_have_the_same_port_which_nobody_else_gets() {
        let first = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).expect("a free port");
        let address = first.address().expect("an address");
        assert!(first.udp.iter().all(|udp| udp.local_addr().ok() == Some(address)));
        let error = Listener::bind(address, None).expect_err("it is in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(address, None).expect("it is free again");
    }

    #[test]
    fn sockets_that_somebody_else_made_are_bound_to_one_port() {
        let socket = |type_| Socket::new(Domain::IPV4, type_, None).expect("a socket").into();
        let unbound = Unbound {
            tcp: socket(Type::STREAM),
            udp: (0..2).map(|_| socket(Type::DGRAM)).collect(),
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind_these(any, unbound, None).expect("a free port");
        let address = listener.address().expect("an address");
        assert!(
            listener
                .udp
                .iter()
                .all(|udp| udp.local_addr().ok() == Some(address))
        );
        assert_eq!(listener.udp.len(), 2);
    }
}
