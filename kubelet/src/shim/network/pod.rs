//! A pod's side: a network namespace of its own with `lo`, and `eth0` at the end of a cable to the cluster's bridge.

use super::route::Route;
use super::{Error, hardware_address, open_to_all, sysctl, sysctl_if_there, to};
use crate::shim::protocol::PodNetwork;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// A pod's interface, as in other clusters.
const INTERFACE: &str = "eth0";

/// The calling thread's network namespace.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A pod that is in the cluster's network. It keeps the cluster's network namespace alive.
#[derive(Debug)]
pub struct Attached {
    cluster: Route,
    interface: String,
}

impl Attached {
    /// Take the pod's cable away at once: the kernel would do that too when the last of the pod's processes is gone, but
    /// in its own time.
    pub fn detach(mut self) -> Result<(), Error> {
        self.cluster
            .remove_link(&self.interface)
            .map(drop)
            .map_err(to(format!("remove the link {}", self.interface)))
    }
}

/// Leave the cluster's network namespace, which the calling thread must be in, for a new one with the pod's address.
pub fn attach(network: &PodNetwork) -> Result<Attached, Error> {
    let namespace = || File::open(OWN_NAMESPACE).map_err(to(format!("open {OWN_NAMESPACE}")));
    let mut cluster = Route::open().map_err(to("speak rtnetlink"))?;
    let bridge = cluster
        .index(&network.bridge)
        .map_err(to("look for the bridge"))?;
    let bridge = bridge
        .ok_or_else(|| to(format!("find the bridge {}", network.bridge))(io::ErrorKind::NotFound.into()))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| to("make a network namespace")(errno.into()))?;
    // These are copied by interfaces that come later.
    sysctl("net.ipv4.conf.all.accept_redirects", "0")?;
    sysctl("net.ipv4.conf.default.accept_redirects", "0")?;
    // Those who knew an earlier pod at this address are told where it is now.
    sysctl("net.ipv4.conf.default.arp_notify", "1")?;
    sysctl_if_there("net.ipv6.conf.default.addr_gen_mode", "1");
    open_to_all()?;
    let own = namespace()?;
    let made = add_cable(&mut cluster, network, bridge, own.as_raw_fd());
    made.map_err(to(format!(
        "connect the pod to the bridge {} with {}",
        network.bridge, network.interface
    )))?;
    configure(network)?;
    Ok(Attached {
        cluster,
        interface: network.interface.clone(),
    })
}

/// A pair of links, one a port of the bridge, the other the pod's.
fn add_cable(cluster: &mut Route, network: &PodNetwork, bridge: u32, pod: RawFd) -> io::Result<()> {
    let mut theirs = LinkMessage::default();
    theirs.attributes = vec![
        LinkAttribute::IfName(INTERFACE.into()),
        LinkAttribute::Address(hardware_address(network.address)),
        LinkAttribute::NetNsFd(pod),
    ];
    let data = InfoData::Veth(InfoVeth::Peer(theirs));
    let mut cable = LinkMessage::default();
    cable.header.flags = LinkFlags::Up;
    cable.header.change_mask = LinkFlags::Up;
    cable.attributes = vec![
        LinkAttribute::IfName(network.interface.clone()),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]),
    ];
    match cluster.add_link(cable.clone()) {
        // Left behind by a pod of which the kernel has not cleaned up everything yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            cluster.remove_link(&network.interface)?;
            cluster.add_link(cable)?;
        }
        made => made?,
    }
    // A pod may reach itself through a Service: what came out of a port may go back into it.
    let mut port = LinkMessage::default();
    let data = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
    port.attributes = vec![
        LinkAttribute::IfName(network.interface.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(data),
        ]),
    ];
    cluster.set_link(port)
}

/// Addresses and routes inside of the pod's namespace.
fn configure(network: &PodNetwork) -> Result<(), Error> {
    let mut pod = Route::open().map_err(to("speak rtnetlink"))?;
    let mut index = |name: &str| {
        let found = pod.index(name).map_err(to(format!("look for {name}")))?;
        found.ok_or_else(|| to(format!("find {name}"))(io::ErrorKind::NotFound.into()))
    };
    let (lo, eth0) = (index("lo")?, index(INTERFACE)?);
    pod.up(lo).map_err(to("switch lo on"))?;
    // Programs that ask see the network's size, but all of it lies behind the gateway.
    let address = format!("give the pod the address {}", network.address);
    pod.add_address(eth0, network.address, network.prefix, false)
        .map_err(to(address))?;
    pod.up(eth0).map_err(to("switch eth0 on"))?;
    let gateway = network.gateway;
    pod.add_route((gateway, 32), eth0, None, Some(network.address))
        .map_err(to("add a route to the gateway"))?;
    pod.add_route(([0, 0, 0, 0].into(), 0), eth0, Some(gateway), None)
        .map_err(to("add the default route"))
}
