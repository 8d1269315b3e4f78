//! The cluster's side: a bridge whose own address is the way out of every pod, and where pods find DNS and the API.

use super::route::Route;
use super::{Error, hardware_address, open_to_all, sysctl, sysctl_if_there, to};
use netlink_packet_route::link::{InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::Ipv4Addr;

/// The network that a cluster's pods are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNetwork {
    /// Name of its bridge; at most 15 bytes.
    pub bridge: String,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Where Services have their addresses: network and length of its prefix.
    pub services: (Ipv4Addr, u8),
    /// Whether the network namespace is the cluster's alone, and not the host's.
    pub own: bool,
}

/// Make the network in the calling thread's network namespace; what of it is there already stays.
pub fn set_up(network: &ClusterNetwork) -> Result<(), Error> {
    let bridge = network.bridge.as_str();
    let mut route = Route::open().map_err(to("speak rtnetlink"))?;
    if network.own {
        own(&mut route)?;
    }
    let index = match route.index(bridge).map_err(to("look for the bridge"))? {
        Some(index) => index,
        None => add_bridge(&mut route, network)?,
    };
    let address = format!("give the bridge {bridge} the address {}", network.gateway);
    route
        .add_address(index, network.gateway, network.prefix, true)
        .map_err(to(address))?;
    // What comes from pods is passed on; what comes from elsewhere is the host's own business.
    sysctl(&format!("net.ipv4.conf.{bridge}.forwarding"), "1")?;
    sysctl(&format!("net.ipv4.conf.{bridge}.send_redirects"), "0")?;
    route
        .up(index)
        .map_err(to(format!("switch the bridge {bridge} on")))?;
    let routes = route.routes().map_err(to("read the routes"))?;
    // The address of a Service is translated only for what has a way to go. On a host with a way to everywhere nothing
    // is to be hidden from it.
    if !routes.iter().any(|(_, prefix, _)| *prefix == 0) {
        route
            .add_route(network.services, index, None, Some(network.gateway))
            .map_err(to("add a route to the Services"))?;
    }
    Ok(())
}

/// What is set in a namespace that nobody else is in.
fn own(route: &mut Route) -> Result<(), Error> {
    open_to_all()?;
    sysctl("net.ipv4.ip_forward", "1")?;
    sysctl("net.ipv4.conf.all.send_redirects", "0")?;
    // Addresses that nobody asked for, and the messages about them.
    sysctl_if_there("net.ipv6.conf.default.addr_gen_mode", "1");
    // Pods reach each other through the bridge's address, so packets would only be looked at twice.
    sysctl_if_there("net.bridge.bridge-nf-call-iptables", "0");
    let lo = route.index("lo").map_err(to("look for lo"))?.unwrap_or(1);
    route.up(lo).map_err(to("switch lo on"))
}

fn add_bridge(route: &mut Route, network: &ClusterNetwork) -> Result<u32, Error> {
    let bridge = &network.bridge;
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(bridge.clone()));
    // Otherwise it would be that of some port, and change with the pods that come and go.
    let hardware = LinkAttribute::Address(hardware_address(network.gateway));
    link.attributes.push(hardware);
    // Nobody here asks who listens to multicast, so snooping would only keep it from those who do.
    let data = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]);
    let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)];
    link.attributes.push(LinkAttribute::LinkInfo(info));
    route
        .add_link(link)
        .map_err(to(format!("make the bridge {bridge}")))?;
    let index = route.index(bridge).map_err(to("look for the bridge"))?;
    index.ok_or_else(|| to(format!("find the bridge {bridge}"))(io::ErrorKind::NotFound.into()))
}

/// Take the bridge away; pods that are still there lose their network. What never was there is no error.
pub fn tear_down(bridge: &str) -> Result<(), Error> {
    let mut route = Route::open().map_err(to("speak rtnetlink"))?;
    route
        .remove_link(bridge)
        .map(drop)
        .map_err(to(format!("remove the bridge {bridge}")))
}

/// The networks that this namespace has routes to besides `bridge`'s, without the default route.
pub fn networks_but(bridge: &str) -> Result<Vec<(Ipv4Addr, u8)>, Error> {
    let mut route = Route::open().map_err(to("speak rtnetlink"))?;
    let own = route.index(bridge).map_err(to("look for the bridge"))?;
    let routes = route.routes().map_err(to("read the routes"))?;
    let others = routes
        .into_iter()
        .filter(|(_, prefix, link)| *prefix > 0 && (link.is_none() || *link != own));
    Ok(others.map(|(network, prefix, _)| (network, prefix)).collect())
}
