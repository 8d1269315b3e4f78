//! Many datagrams with one system call (Linux' recvmmsg and sendmmsg). All unsafe code of this crate is here.
//!
//! A batch has a place for each datagram: what came, from whom, through which of our addresses, and the answer. An answer
//! leaves from the address that was asked, also where the socket is bound to all addresses: what the kernel says about
//! the way a datagram came (IP_PKTINFO, IPV6_PKTINFO) is given back to it with the answer.

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, sockaddr_storage, socklen_t};
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// How many datagrams one call takes at most.
const MOST: usize = 64;
/// A query is shorter; of a longer one the rest is cut off, and it cannot be read.
const QUERY: usize = 4096;
/// Room for what the kernel says about the way of a datagram: a header and an `in6_pktinfo`.
const WAY: usize = 64;

/// Who asked, and on which way.
#[derive(Clone, Copy)]
pub struct Client {
    name: sockaddr_storage,
    name_length: socklen_t,
    way: Way,
    way_length: usize,
}

/// Aligned as a header of control data must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Way([u8; WAY]);

impl Client {
    const NOBODY: Self = Self {
        // SAFETY: plain numbers, for which all zeros is a value (AF_UNSPEC).
        name: unsafe { std::mem::zeroed() },
        name_length: 0,
        way: Way([0; WAY]),
        way_length: 0,
    };

    /// The client's address; `None` if it is no IP address or no port to answer to.
    pub fn address(&self) -> Option<SocketAddr> {
        let pointer = &raw const self.name;
        let address = match c_int::from(self.name.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says what is stored, and a sockaddr_storage is large enough for each.
                let name = unsafe { &*pointer.cast::<libc::sockaddr_in>() };
                let ip = IpAddr::from(name.sin_addr.s_addr.to_ne_bytes());
                SocketAddr::new(ip, u16::from_be(name.sin_port))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe { &*pointer.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                SocketAddr::new(ip.to_canonical(), u16::from_be(name.sin6_port))
            }
            _ => return None,
        };
        (address.port() != 0).then_some(address)
    }

    /// The header of a message to or from this client with these bytes.
    fn header(&mut self, bytes: &mut iovec) -> msghdr {
        // SAFETY: plain numbers and pointers, for which all zeros is a value.
        let mut header: msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = (&raw mut self.name).cast::<c_void>();
        header.msg_namelen = self.name_length;
        header.msg_iov = bytes;
        header.msg_iovlen = 1;
        if self.way_length > 0 {
            header.msg_control = (&raw mut self.way).cast::<c_void>();
            header.msg_controllen = self.way_length as _;
        }
        header
    }
}

/// Places for datagrams.
pub struct Batch {
    queries: Vec<[u8; QUERY]>,
    lengths: Vec<usize>,
    clients: Vec<Client>,
    answers: Vec<Vec<u8>>,
    /// How many bytes each answer has; 0 where there is none.
    written: Vec<usize>,
    /// Made anew for each call; here so that they are not allocated anew.
    vectors: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

// SAFETY: the pointers in `vectors` and `headers` are only used within the call that has set them.
unsafe impl Send for Batch {}

/// A datagram and the place for its answer.
pub struct Datagram<'a> {
    /// What came.
    pub query: &'a [u8],
    /// From whom.
    pub client: &'a Client,
    /// Where to write the answer.
    pub answer: &'a mut [u8],
    /// How long the answer is; it stays 0 if there is none.
    pub written: &'a mut usize,
}

impl Batch {
    /// Places for answers of so many bytes.
    pub fn new(answer: usize) -> Self {
        Self {
            queries: vec![[0; QUERY]; MOST],
            lengths: Vec::with_capacity(MOST),
            clients: vec![Client::NOBODY; MOST],
            answers: vec![vec![0; answer]; MOST],
            written: vec![0; MOST],
            vectors: Vec::with_capacity(MOST),
            headers: Vec::with_capacity(MOST),
        }
    }

    /// Wait until there is a datagram, or the socket's time is over, and take all that are there; how many.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.vectors.clear();
        self.headers.clear();
        self.lengths.clear();
        for (query, client) in self.queries.iter_mut().zip(&mut self.clients) {
            client.name_length = size_of::<sockaddr_storage>() as socklen_t;
            client.way_length = WAY;
            self.vectors.push(iovec {
                iov_base: query.as_mut_ptr().cast(),
                iov_len: QUERY,
            });
            let vector = self.vectors.last_mut().expect("just pushed");
            self.headers.push(mmsghdr {
                msg_hdr: client.header(vector),
                msg_len: 0,
            });
        }
        // SAFETY: each header points to a vector, a client and a query of its own, all of which stay where they are
        // until the call is over (`vectors` has room for all, so pushing did not move it).
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                MOST as _,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (place, header) in self.headers[..received].iter().enumerate() {
            self.lengths.push(header.msg_len as usize);
            self.clients[place].name_length = header.msg_hdr.msg_namelen;
            self.clients[place].way_length = header.msg_hdr.msg_controllen as _;
            self.written[place] = 0;
        }
        Ok(received)
    }

    /// The datagrams that came last.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let came = self.queries.iter().zip(&self.lengths).zip(&self.clients);
        let answers = self.answers.iter_mut().zip(&mut self.written);
        came.zip(answers)
            .map(|(((query, length), client), (answer, written))| Datagram {
                query: &query[..*length],
                client,
                answer,
                written,
            })
    }

    /// Send the answers. One that cannot be sent is left out, the others are sent.
    pub fn send(&mut self, socket: &UdpSocket) {
        self.vectors.clear();
        self.headers.clear();
        for place in 0..self.lengths.len() {
            if self.written[place] == 0 {
                continue;
            }
            self.vectors.push(iovec {
                iov_base: self.answers[place].as_mut_ptr().cast(),
                iov_len: self.written[place],
            });
            let vector = self.vectors.last_mut().expect("just pushed");
            self.headers.push(mmsghdr {
                msg_hdr: self.clients[place].header(vector),
                msg_len: 0,
            });
        }
        let mut sent = 0;
        while sent < self.headers.len() {
            let rest = &mut self.headers[sent..];
            // SAFETY: as in `receive`; the kernel only reads what the headers point to.
            let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as _, 0) };
            match usize::try_from(result) {
                Ok(count) if count > 0 => sent += count,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        tracing::debug!(%error, "a DNS answer was not sent");
                        sent += 1;
                    }
                }
            }
        }
    }
}

/// Send one answer, later than the others.
pub fn send(socket: &UdpSocket, client: &Client, answer: &[u8]) -> io::Result<()> {
    let mut client = *client;
    let mut vector = iovec {
        iov_base: answer.as_ptr().cast_mut().cast(),
        iov_len: answer.len(),
    };
    let header = client.header(&mut vector);
    // SAFETY: what the header points to stays until the call is over, and the kernel only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Let the kernel say through which address each datagram came.
pub fn tell_way(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: c_int = 1;
    // SAFETY: the option is an int, which is read before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Wake up whoever waits for a datagram, now and from now on.
pub fn close(socket: &UdpSocket) {
    // SAFETY: a call without pointers. It fails because the socket has no peer, and wakes up its readers all the same.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).expect(address);
        let time = Some(Duration::from_secs(20));
        socket.set_read_timeout(time).expect("a time");
        socket
    }

    /// Send two datagrams to `to`, and let the server answer each with its bytes in reverse.
    fn exchange(server: &UdpSocket, to: SocketAddr) -> Vec<(Vec<u8>, SocketAddr)> {
        let client = socket(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
        for datagram in [&b"abc"[..], b"xy"] {
            client.send_to(datagram, to).expect("loopback");
        }
        let mut batch = Batch::new(10);
        let mut left = 2;
        while left > 0 {
            left -= batch.receive(server).expect("a datagram");
            for datagram in batch.datagrams() {
                assert_eq!(datagram.client.address(), client.local_addr().ok());
                for (to, from) in datagram.answer.iter_mut().zip(datagram.query.iter().rev()) {
                    *to = *from;
                }
                *datagram.written = datagram.query.len();
            }
            batch.send(server);
        }
        let mut bytes = [0; 10];
        let answers = (0..2).map(|_| {
            let (length, from) = client.recv_from(&mut bytes).expect("an answer");
            (bytes[..length].to_vec(), from)
        });
        answers.collect()
    }

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        let server = socket("0.0.0.0:0");
        tell_way(&server).expect("an option");
        let mut asked = SocketAddr::from(([127, 9, 8, 7], 0));
        asked.set_port(server.local_addr().expect("an address").port());
        let expected = [(b"cba".to_vec(), asked), (b"yx".to_vec(), asked)];
        assert_eq!(exchange(&server, asked), expected);
    }

    #[test]
    fn a_socket_of_one_address_needs_no_way() {
        let server = socket("127.0.0.1:0");
        let asked = server.local_addr().expect("an address");
        let expected = [(b"cba".to_vec(), asked), (b"yx".to_vec(), asked)];
        assert_eq!(exchange(&server, asked), expected);
    }

    #[test]
    fn closing_wakes_up_who_waits() {
        let server = socket("127.0.0.1:0");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Batch::new(10).receive(&server).map_or(0, |count| count));
            close(&server);
            // If it was not woken up, its time would be over after 20 s, as an error; either way nothing came.
            waiting.join().expect("it does not panic");
        });
    }
}
