//! The way into the cluster's network: connections to pods, and listeners where pods find them.
//!
//! A socket works in the network namespace it was made in, whoever uses it. As root, and wherever pods are on the host's
//! loopback, that is this process's own; an ordinary user's cluster has one of its own, and the holder opens sockets in
//! it and hands them over.

mod range;

pub use range::{Remembered, choose_range};

use crate::Kubelet;
use crate::holder::client::Holders;
use crate::shim::network::ClusterNetwork;
use crate::shim::protocol::PodNetwork;
use k8s_openapi::api::core::v1::Pod;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A way into the cluster's network.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Who opens sockets; `None`: this process does.
    holders: Option<Arc<Holders>>,
}

impl Network {
    /// The network that this process is in.
    pub fn own() -> Self {
        Self::default()
    }

    /// The network that these holders are in, one after the other.
    pub fn held(holders: Arc<Holders>) -> Self {
        Self {
            holders: Some(holders),
        }
    }

    /// Those of [`Network::held`].
    pub(crate) fn holders(&self) -> Option<Arc<Holders>> {
        self.holders.clone()
    }

    /// A socket, with the numbers of `socket(2)`; it blocks, and is closed on exec.
    pub async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        match &self.holders {
            Some(holders) => {
                let holder = holders.current().await.map_err(io::Error::other)?;
                holder.socket(domain, kind, protocol).await
            }
            None => open(domain, kind, protocol),
        }
    }

    async fn tcp(&self, family: IpAddr) -> io::Result<TcpSocket> {
        let socket = self.socket(domain(family), libc::SOCK_STREAM, 0).await?;
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(TcpSocket::from_std_stream(stream))
    }

    /// Connect over TCP.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.tcp(to.ip()).await?.connect(to).await
    }

    /// Connect over TCP with a host that is an address or a name that this machine knows.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        if let Ok(address) = host.parse() {
            return self.connect(SocketAddr::new(address, port)).await;
        }
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "no such host");
        for address in tokio::net::lookup_host((host, port)).await? {
            match self.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Listen over TCP.
    pub async fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.tcp(at.ip()).await?;
        // A port whose connections have just been closed can be had again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    }

    /// Listen over UDP.
    pub async fn udp(&self, at: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(domain(at.ip()), libc::SOCK_DGRAM, 0).await?;
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        UdpSocket::from_std(socket.into())
    }
}

fn domain(address: IpAddr) -> i32 {
    match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    }
}

/// A socket of the network that the calling thread is in, with the numbers of `socket(2)`; it is closed on exec.
pub(crate) fn open(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let raw = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

impl ClusterNetwork {
    /// The place of a pod with this UID in it.
    pub fn place(&self, uid: &str, address: Ipv4Addr) -> PodNetwork {
        // A link's name has room for 15 bytes, and the last part of a UID is random.
        let distinct: String = uid.chars().filter(char::is_ascii_alphanumeric).collect();
        let tail = &distinct[distinct.len().saturating_sub(12)..];
        PodNetwork {
            bridge: self.bridge.clone(),
            interface: format!("pet{tail}"),
            address,
            prefix: self.prefix,
            gateway: self.gateway,
        }
    }
}

impl Kubelet {
    /// The address that a pod gets: its own, or the node's if it is on the node's network. `None`: the range is full.
    pub(crate) fn assign_address(&self, pod: &Pod) -> Option<IpAddr> {
        if self.options.cluster_network.is_some() && is_on_host_network(pod) {
            return Some(self.options.host_ip);
        }
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let (namespace, name, uid) = (&metadata.namespace, &metadata.name, &metadata.uid);
        self.addresses().assign(&part(namespace), &part(name), &part(uid))
    }

    /// The place in the cluster's network that a pod with this address gets; `None`: it is on the node's.
    pub fn place(&self, pod: &Pod, address: Option<IpAddr>) -> Option<PodNetwork> {
        let cluster = self.options.cluster_network.as_ref()?;
        let Some(IpAddr::V4(address)) = address else {
            return None;
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        (!is_on_host_network(pod)).then(|| cluster.place(uid, address))
    }
}

fn is_on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::protocol::Isolation;
    use crate::shim::protocol::holder::{Report, Request, SOCKET};
    use crate::shim::wire::Connection;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    #[test]
    fn a_cable_has_a_name_that_the_kernel_takes() {
        let cluster = ClusterNetwork {
            bridge: "petset0".into(),
            gateway: [10, 244, 0, 1].into(),
            prefix: 16,
            services: ([10, 96, 0, 0].into(), 12),
            own: true,
        };
        let place = |uid: &str| cluster.place(uid, [10, 244, 0, 2].into()).interface;
        assert_eq!(place("a4bff3b2-8d4c-4b0e-9d4f-0123456789ab"), "pet0123456789ab");
        assert_eq!(place("x"), "petx");
        assert_eq!(place("é/.."), "pet");
    }

    fn hello() -> Report {
        Report::Hello {
            pid: 1,
            isolation: Isolation::Namespaces,
            version: "0".into(),
        }
    }

    async fn echo(network: &Network) {
        let listener = network
            .listen(([127, 0, 0, 1], 0).into())
            .await
            .expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (accepted, dialled) = tokio::join!(listener.accept(), network.dial("127.0.0.1", address.port()));
        let from = dialled.expect("connected").local_addr().expect("an address");
        assert_eq!(accepted.expect("accepted").1, from);
        let udp = network.udp(([127, 0, 0, 1], 0).into()).await.expect("a socket");
        assert!(udp.local_addr().expect("an address").port() > 0);
    }

    #[tokio::test]
    async fn sockets_are_this_processs_own_or_the_holders() {
        echo(&Network::own()).await;
        // A path that no socket's address has room for.
        let directory = tempfile::tempdir().expect("tempdir");
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("created");
        let data_dir = File::open(&deep).expect("opened");
        let path = format!("/proc/self/fd/{}/{SOCKET}", data_dir.as_raw_fd());
        let listener = UnixListener::bind(path).expect("bound");
        std::thread::spawn(move || {
            for kubelet in listener.incoming() {
                let mut kubelet = Connection::new(kubelet.expect("a kubelet").into());
                while kubelet.receive() {
                    let Some(line) = kubelet.next_line() else { continue };
                    match serde_json::from_slice(&line).expect("a request") {
                        Request::Socket {
                            domain,
                            kind,
                            protocol,
                        } => {
                            let socket = open(domain, kind, protocol).expect("a socket");
                            kubelet.send(&Report::Done, &[socket.as_fd()]);
                        }
                        _ => kubelet.send(&hello(), &[]),
                    }
                }
            }
        });
        let held = |data_dir: &Path| {
            let (nobody, data_dir) = ("/no/such/program".into(), data_dir.to_owned());
            let holders = Holders::new(nobody, data_dir, Isolation::Namespaces, None);
            Network::held(Arc::new(holders))
        };
        echo(&held(&deep)).await;
        let refused = held(directory.path()).connect(([127, 0, 0, 1], 1).into()).await;
        let refused = refused.expect_err("no holder").to_string();
        assert!(refused.starts_with("cannot run /no/such/program"), "{refused}");
    }
}
