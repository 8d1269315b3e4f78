//! An rtnetlink socket: requests that change links, addresses and routes, each answered by the kernel before the next.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use netlink_packet_route::route::{RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::Ipv4Addr;

/// It speaks to the network namespace that it was opened in, wherever its owner is later, and keeps that alive.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    /// In the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Everything that the kernel answers to the last request, up to its acknowledgement.
    fn answers(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages are padded to four bytes.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_ACK | flags)?;
        self.answers()
    }

    /// The index of a link; `None` if there is none of this name.
    pub fn index(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        match self.ask(RouteNetlinkMessage::GetLink(link), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Make a link; `AlreadyExists` if there is one of this name.
    pub fn add_link(&mut self, link: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    /// Change a link that is there.
    pub fn set_link(&mut self, link: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::NewLink(link), 0).map(drop)
    }

    /// Switch a link on.
    pub fn up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.set_link(link)
    }

    /// Take a link away; true if it was there.
    pub fn remove_link(&mut self, name: &str) -> io::Result<bool> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        match self.ask(RouteNetlinkMessage::DelLink(link), 0) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Give a link an address. `on_link`: with a route to the others of its network.
    pub fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
        on_link: bool,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.flags = AddressHeaderFlags::Permanent;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.into()));
        message.attributes.push(AddressAttribute::Address(address.into()));
        if !on_link {
            let flags = AddressFlags::Noprefixroute;
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        self.ask(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map(drop)
    }

    /// Lead what is for `network` to a link: to those on it, or through one of them.
    pub fn add_route(
        &mut self,
        network: (Ipv4Addr, u8),
        index: u32,
        through: Option<Ipv4Addr>,
        from: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let (destination, prefix) = network;
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match through {
            Some(_) => RouteScope::Universe,
            None => RouteScope::Link,
        };
        let address = |address| RouteAddress::Inet(address);
        if prefix > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(address(destination)));
        }
        message.attributes.push(RouteAttribute::Oif(index));
        message
            .attributes
            .extend(through.map(|gateway| RouteAttribute::Gateway(address(gateway))));
        message
            .attributes
            .extend(from.map(|source| RouteAttribute::PrefSource(address(source))));
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map(drop)
    }

    /// The IPv4 routes of the main table: network, prefix and the link's index; the default route is `0.0.0.0/0`.
    pub fn routes(&mut self) -> io::Result<Vec<(Ipv4Addr, u8, Option<u32>)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        self.send(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        let answers = self.answers()?;
        Ok(answers.into_iter().filter_map(in_main_table).collect())
    }
}

fn in_main_table(answer: RouteNetlinkMessage) -> Option<(Ipv4Addr, u8, Option<u32>)> {
    let RouteNetlinkMessage::NewRoute(route) = answer else {
        return None;
    };
    if route.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut network, mut link) = (Ipv4Addr::UNSPECIFIED, None);
    for attribute in route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => network = address,
            RouteAttribute::Oif(index) => link = Some(index),
            _ => {}
        }
    }
    Some((network, route.header.destination_prefix_length, link))
}
