//! Single questions, to see that a server is there and that all of them say the same.

use crate::names::{Cluster, Shape};
use crate::servers::Server;
use anyhow::{Context, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use std::net::UdpSocket;
use std::str::FromStr;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(1);

/// Code and answers, in order.
pub type Said = (String, Vec<String>);

/// Ask a server once.
pub fn ask(server: &Server, name: &str, type_: &str) -> anyhow::Result<Said> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut question = Message::new(1, MessageType::Query, OpCode::Query);
    let mut name = Name::from_str(name)?;
    name.set_fqdn(true);
    question.add_query(Query::query(name, RecordType::from_str(type_)?));
    socket.send(&question.to_vec()?)?;
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes)?;
    let message = Message::from_vec(&bytes[..length])?;
    let mut answers: Vec<String> = message.answers.iter().map(ToString::to_string).collect();
    answers.sort();
    Ok((message.metadata.response_code.to_string(), answers))
}

/// Wait until a server gives the address of the last name that the cluster has.
pub fn until_complete(server: &Server, cluster: Cluster) -> anyhow::Result<()> {
    let last = crate::names::endpoint_name(cluster.endpoints - 1);
    let began = Instant::now();
    loop {
        match ask(server, &last, "A") {
            Ok((_, answers)) if !answers.is_empty() => return Ok(()),
            said if began.elapsed() > DEADLINE => bail!("{} says of {last}: {said:?}", server.name),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether all servers say the same as the first to some questions of a shape.
pub fn compare(servers: &[Server], cluster: Cluster, shape: Shape) -> anyhow::Result<()> {
    let [first, others @ ..] = servers else {
        return Ok(());
    };
    for (name, type_) in cluster.ask(shape).take(50) {
        let said = ask(first, &name, type_).with_context(|| format!("{} {name} {type_}", first.name))?;
        for other in others {
            let differs =
                ask(other, &name, type_).with_context(|| format!("{} {name} {type_}", other.name))?;
            if differs != said {
                bail!(
                    "{name} {type_}: {} says {said:?}, {} says {differs:?}",
                    first.name,
                    other.name
                );
            }
        }
    }
    Ok(())
}
