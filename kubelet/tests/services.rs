//! Rules for Services in a kernel: a network namespace with a bridge, and pods that are threads in network namespaces of their
//! own. As root or as an ordinary user, whoever runs the tests: each test runs itself again inside namespaces.

use kubelet::service::nft::{Place, Socket, remove, replace};
use kubelet::service::port::{Backends, Protocol, ServicePort};
use kubelet::service::rules::rules;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const TABLE: &str = "petset-test";

/// Run `test` inside of namespaces of its own: here, if this is there already.
fn inside(name: &str, test: impl FnOnce()) {
    const MARK: &str = "PETSET_TEST_INSIDE";
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let own = std::env::current_exe().expect("a test knows where it is");
    let done = command
        .arg("--net")
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("unshare is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        done.status.success(),
        "{}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
    assert!(
        text(&done.stdout).contains("1 passed"),
        "{name} is not the test's name"
    );
}

/// Run a program in the calling thread's network; what it says.
fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let done = Command::new(program).args(words).output().expect(program);
    assert!(
        done.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The cluster's side.
fn make_network() -> Socket {
    for line in [
        "ip link set lo up",
        "ip link add br0 type bridge",
        "ip addr add 10.244.0.1/16 dev br0",
        "ip link set br0 up",
        "ip route add 10.96.0.0/12 dev br0",
    ] {
        run(line);
    }
    let set = |name: &str, value: &str| std::fs::write(format!("/proc/sys/net/{name}"), value).expect(name);
    set("ipv4/ip_forward", "1");
    set("ipv4/conf/all/send_redirects", "0");
    set("ipv4/conf/br0/send_redirects", "0");
    let netfilter = SockProtocol::NetlinkNetFilter;
    let made = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        netfilter,
    );
    Socket::new(made.expect("a netlink socket"))
}

fn place() -> Place {
    Place {
        table: TABLE.into(),
        bridge: "br0".into(),
        pods: (Ipv4Addr::new(10, 244, 0, 0), 16),
    }
}

fn apply(kernel: &Socket, ports: &[ServicePort]) {
    let batch = replace(&place(), &rules(ports, Some(GATEWAY)));
    kernel.carry_out(&batch).expect("the kernel takes the rules");
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread in a network of its own. It ends with the test.
struct Pod {
    address: Ipv4Addr,
    work: mpsc::Sender<Work>,
}

impl Pod {
    fn new(number: u8) -> Self {
        let (work, orders) = mpsc::channel::<Work>();
        let (made, is_made) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            made.send(nix::unistd::gettid()).expect("somebody waits");
            orders.into_iter().for_each(|work| work());
        });
        let thread = is_made.recv_timeout(PATIENCE).expect("the pod starts");
        run(&format!(
            "ip link add v{number} type veth peer name eth0 netns {thread}"
        ));
        run(&format!("ip link set v{number} master br0 up"));
        // Where bridges show what they carry to the packet filter, a packet to its own sender never leaves the bridge.
        run(&format!("ip link set v{number} type bridge_slave hairpin on"));
        let pod = Self {
            address: Ipv4Addr::new(10, 244, 0, number),
            work,
        };
        let address = pod.address;
        pod.run(move || {
            run("ip link set lo up");
            run(&format!("ip addr add {address}/16 dev eth0 noprefixroute"));
            run("ip link set eth0 up");
            run("ip route add 10.244.0.1 dev eth0");
            run("ip route add default via 10.244.0.1");
        });
        pod
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, is_done) = mpsc::channel();
        let work = move || done.send(work()).expect("somebody waits");
        self.work.send(Box::new(work)).expect("the pod runs");
        is_done.recv_timeout(PATIENCE).expect("the pod does it")
    }

    /// Tell everybody who connects where they come from and who answers.
    fn serve(&self, port: u16) -> SocketAddrV4 {
        let address = self.address;
        self.run(move || {
            let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
            thread::spawn(move || {
                for connection in listener.incoming() {
                    let mut connection = connection.expect("a connection");
                    let peer = connection.peer_addr().expect("a peer").ip();
                    // Whoever asks may be gone.
                    let _ = connection.write_all(format!("{address} to {peer}").as_bytes());
                }
            });
            let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a free port");
            thread::spawn(move || {
                let mut buffer = [0; 100];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{address} to {}", peer.ip()).as_bytes(), peer);
                }
            });
        });
        SocketAddrV4::new(self.address, port)
    }

    fn ask(&self, address: &str) -> Result<String, ErrorKind> {
        let address = address.to_owned();
        self.run(move || ask(&address))
    }
}

/// What the server at `address` says, as seen from the calling thread.
fn ask(address: &str) -> Result<String, ErrorKind> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE / 10).map_err(|e| e.kind())?;
    let mut answer = String::new();
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    connection.read_to_string(&mut answer).map_err(|e| e.kind())?;
    Ok(answer)
}

fn ask_by_datagram(address: &str) -> Result<String, ErrorKind> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.connect(address).expect("a way");
    let mut buffer = [0; 100];
    socket.send(b"?").map_err(|e| e.kind())?;
    let length = socket.recv(&mut buffer).map_err(|e| e.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn port(cluster: &str, endpoints: &[SocketAddrV4]) -> ServicePort {
    let backends = match endpoints {
        [] => Backends::Refused,
        some => Backends::Endpoints(some.to_vec()),
    };
    ServicePort {
        namespace: "default".into(),
        service: "web".into(),
        uid: "u".into(),
        protocol: Protocol::Tcp,
        cluster: cluster.parse().expect("an address"),
        external: Vec::new(),
        node_port: None,
        affinity: false,
        inside: backends.clone(),
        outside: backends,
    }
}

/// How often each answer came.
fn count(answers: impl Iterator<Item = Result<String, ErrorKind>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.expect("an answer")).or_default() += 1;
    }
    counts
}

#[test]
fn connections_are_shared_among_endpoints_which_see_the_client() {
    inside(
        "connections_are_shared_among_endpoints_which_see_the_client",
        || {
            let kernel = make_network();
            let (a, b, c) = (Pod::new(2), Pod::new(3), Pod::new(4));
            let mut http = port("10.96.0.10:80", &[a.serve(8080), b.serve(8080)]);
            http.node_port = Some(30080);
            http.external = vec!["192.0.2.1:80".parse().expect("an address")];
            let mut udp = port("10.96.0.10:53", &[a.serve(53)]);
            udp.protocol = Protocol::Udp;
            apply(&kernel, &[http, udp]);
            for address in ["10.96.0.10:80", "10.244.0.1:30080", "192.0.2.1:80"] {
                let counts = count((0..40).map(|_| c.ask(address)));
                let seen: Vec<_> = counts.keys().collect();
                assert_eq!(
                    seen,
                    ["10.244.0.2 to 10.244.0.4", "10.244.0.3 to 10.244.0.4"],
                    "{address}"
                );
                assert!(counts.values().all(|count| *count > 5), "{counts:?}");
            }
            let answer = c.run(|| ask_by_datagram("10.96.0.10:53"));
            assert_eq!(answer.expect("an answer"), "10.244.0.2 to 10.244.0.4");
            // Who is in the cluster's network without being a pod.
            let counts = count((0..40).map(|_| ask("10.96.0.10:80")));
            let seen: Vec<_> = counts.keys().collect();
            assert_eq!(seen, ["10.244.0.2 to 10.244.0.1", "10.244.0.3 to 10.244.0.1"]);
        },
    );
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    inside("a_pod_reaches_itself_through_its_service", || {
        let kernel = make_network();
        let pod = Pod::new(2);
        apply(&kernel, &[port("10.96.0.10:80", &[pod.serve(8080)])]);
        let answer = pod.ask("10.96.0.10:80").expect("an answer");
        assert_eq!(answer, "10.244.0.2 to 10.244.0.1");
    });
}

#[test]
fn what_nobody_answers_is_refused_at_once_or_not_answered() {
    inside("what_nobody_answers_is_refused_at_once_or_not_answered", || {
        let kernel = make_network();
        let (pod, client) = (Pod::new(2), Pod::new(3));
        let mut local = port("10.96.0.12:80", &[]);
        local.inside = Backends::Dropped;
        local.node_port = Some(30081);
        let mut nobody = port("10.96.0.11:53", &[]);
        nobody.protocol = Protocol::Udp;
        apply(
            &kernel,
            &[
                port("10.96.0.10:80", &[pod.serve(8080)]),
                port("10.96.0.11:80", &[]),
                nobody,
                local,
            ],
        );
        assert!(client.ask("10.96.0.10:80").is_ok());
        for address in ["10.96.0.11:80", "10.96.0.10:81", "10.244.0.1:30081"] {
            assert_eq!(
                client.ask(address),
                Err(ErrorKind::ConnectionRefused),
                "{address}"
            );
            assert_eq!(
                ask(address),
                Err(ErrorKind::ConnectionRefused),
                "{address} from the node"
            );
        }
        assert_eq!(client.ask("10.96.0.12:80"), Err(ErrorKind::TimedOut));
        let answer = client.run(|| ask_by_datagram("10.96.0.11:53"));
        assert_eq!(answer, Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn with_affinity_a_client_always_meets_the_same_endpoint() {
    inside("with_affinity_a_client_always_meets_the_same_endpoint", || {
        let kernel = make_network();
        let servers = [Pod::new(2), Pod::new(3), Pod::new(4)];
        let endpoints: Vec<_> = servers.iter().map(|pod| pod.serve(8080)).collect();
        let mut service = port("10.96.0.10:80", &endpoints);
        service.affinity = true;
        apply(&kernel, &[service.clone()]);
        let client = Pod::new(20);
        let first = client.ask("10.96.0.10:80");
        let counts = count((0..20).map(|_| client.ask("10.96.0.10:80")));
        assert_eq!(counts.len(), 1, "{counts:?}");
        // Also after the others have gone, under a table that is new.
        let chosen: Ipv4Addr = {
            let answer = first.clone().expect("an answer");
            answer
                .split(' ')
                .next()
                .expect("an address")
                .parse()
                .expect("an address")
        };
        let left: Vec<_> = endpoints.into_iter().filter(|e| *e.ip() == chosen).collect();
        service.inside = Backends::Endpoints(left);
        apply(&kernel, &[service]);
        assert_eq!(client.ask("10.96.0.10:80"), first);
    });
}

#[test]
fn a_table_is_replaced_under_open_connections_and_removed_without_a_trace() {
    inside(
        "a_table_is_replaced_under_open_connections_and_removed_without_a_trace",
        || {
            let kernel = make_network();
            let (server, client) = (Pod::new(2), Pod::new(3));
            let listener = server.run(|| TcpListener::bind("0.0.0.0:8080").expect("a free port"));
            let endpoint = SocketAddrV4::new(server.address, 8080);
            apply(&kernel, &[port("10.96.0.10:80", &[endpoint])]);
            let mut near = client.run(|| TcpStream::connect("10.96.0.10:80").expect("a connection"));
            let (mut far, _) = listener.accept().expect("a connection");
            apply(
                &kernel,
                &[port("10.96.0.10:80", &[]), port("10.96.0.11:80", &[endpoint])],
            );
            near.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            for text in [b"one", b"two"] {
                far.write_all(text).expect("written");
                let mut read = [0; 3];
                near.read_exact(&mut read).expect("it arrives");
                assert_eq!(&read, text);
            }
            assert_eq!(client.ask("10.96.0.10:80"), Err(ErrorKind::ConnectionRefused));
            for _ in 0..2 {
                kernel.carry_out(&remove(TABLE)).expect("removed");
                assert_eq!(run("nft list ruleset"), "");
            }
        },
    );
}

#[test]
fn nft_reads_the_rules_as_they_are_meant() {
    inside("nft_reads_the_rules_as_they_are_meant", || {
        let kernel = make_network();
        let endpoints = ["10.244.0.2:8080", "10.244.0.3:8080"].map(|a| a.parse().expect("an address"));
        let mut udp = port("10.96.0.10:53", &endpoints[..1]);
        udp.protocol = Protocol::Udp;
        let mut sticky = port("10.96.0.11:80", &endpoints);
        sticky.affinity = true;
        let mut dropped = port("10.96.0.12:80", &[]);
        dropped.inside = Backends::Dropped;
        dropped.outside = Backends::Dropped;
        apply(
            &kernel,
            &[
                port("10.96.0.10:80", &endpoints),
                udp,
                sticky,
                dropped,
                port("10.96.0.13:443", &[]),
            ],
        );
        let listed = run(&format!("nft list table ip {TABLE}"));
        for meant in [
            "10.96.0.10 . udp . 53 . 0x00000000 : 10.244.0.2 . 8080",
            "10.96.0.10 . tcp . 80 . 0x00000001 : 10.244.0.3 . 8080",
            "10.96.0.11 . tcp . 80 . 0x000000ff : 10.244.0.",
            "numgen random mod 2 map @spread-2",
            "jhash ip saddr mod 256 seed 0x70657473 map @by-client",
            "elements = { 10.96.0.12 . tcp . 80 }",
            "elements = { 10.96.0.13 . tcp . 443 }",
            "@dropped drop",
            "@refused reject",
            "ip daddr @cluster-ips reject",
            "type nat hook prerouting priority dstnat;",
            "type filter hook prerouting priority dstnat + 10;",
            "iifname \"br0\" jump services",
            "iifname \"br0\" jump unanswered",
            "ip saddr . ip daddr @hairpin masquerade",
            "ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 oifname != \"br0\" masquerade",
        ] {
            assert!(listed.contains(meant), "{meant} is not in\n{listed}");
        }
    });
}

#[test]
fn hundreds_of_services_are_one_batch() {
    inside("hundreds_of_services_are_one_batch", || {
        let kernel = make_network();
        let ports: Vec<_> = (0..500u16)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                let endpoints = [2, 3, 4].map(|last| SocketAddrV4::new([10, 244, high, last].into(), 80 + n));
                port(&format!("10.96.{high}.{low}:80"), &endpoints)
            })
            .collect();
        let batch = replace(&place(), &rules(&ports, None));
        assert!(batch.len() < 200_000, "{} bytes", batch.len());
        kernel.carry_out(&batch).expect("the kernel takes the rules");
    });
}
