//! The cluster's network, made inside of a network namespace that the test itself makes: as root and as an ordinary user.
//!
//! Each scenario runs in a process of its own: this binary, started again by `unshare`. Pods are threads of it, since a
//! network namespace is a thread's.

use kubelet::shim::network::{ClusterNetwork, cluster, pod};
use kubelet::shim::protocol::PodNetwork;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// One promise, proved inside of the namespace.
type Scenario = fn();

const SCENARIOS: [(&str, Scenario); 6] = [
    ("pods_listen_on_the_same_port_and_reach_each_other", same_port),
    (
        "a_pod_reaches_the_gateway_and_itself_and_nothing_outside",
        gateway,
    ),
    ("a_second_set_up_changes_nothing", set_up_again),
    (
        "a_pod_that_comes_back_under_its_address_is_found_at_once",
        comes_back,
    ),
    (
        "the_bridge_keeps_its_hardware_address_when_pods_come",
        bridge_keeps,
    ),
    ("networks_of_others_are_seen_and_the_bridges_own_is_not", networks),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name] = arguments.as_slice()
        && first == "inside"
    {
        let found = SCENARIOS.iter().find(|(known, _)| known == name);
        found.expect("a scenario").1();
        return ExitCode::SUCCESS;
    }
    let root = nix::unistd::getuid().is_root();
    let mut trials = Vec::new();
    for (name, _) in SCENARIOS {
        if root {
            trials.push(Trial::test(format!("{name}_as_root"), move || {
                run(&["unshare", "--net"], name)
            }));
        }
        let ordinary = ["unshare", "--user", "--map-root-user", "--net"];
        let mut line: Vec<&str> = Vec::new();
        if root {
            line.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        line.extend(ordinary);
        trials.push(Trial::test(format!("{name}_as_an_ordinary_user"), move || {
            run(&line, name)
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// This binary once more, by way of a command line that makes the namespace.
fn run(line: &[&str], scenario: &str) -> Result<(), Failed> {
    // Not by its path: the directories above may be closed to others.
    let own = File::open(std::env::current_exe()?)?;
    let done = Command::new(line[0])
        .args(&line[1..])
        .args(["/proc/self/fd/0", "inside", scenario])
        .stdin(Stdio::from(own))
        .output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", done.status, String::from_utf8_lossy(&done.stderr)).into())
}

fn the_cluster() -> ClusterNetwork {
    ClusterNetwork {
        bridge: "petset-test".into(),
        gateway: GATEWAY,
        prefix: 16,
        services: (Ipv4Addr::new(10, 96, 0, 0), 12),
        own: true,
    }
}

fn set_up() {
    cluster::set_up(&the_cluster()).unwrap_or_else(|error| panic!("{error}"));
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, last)
}

/// Run `work` in a pod and answer what it does; the pod is there as long as its thread.
fn in_pod<T: Send + 'static>(last: u8, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        let network = PodNetwork {
            bridge: "petset-test".into(),
            interface: format!("pod{last}"),
            address: address(last),
            prefix: 16,
            gateway: GATEWAY,
        };
        let attached = pod::attach(&network).unwrap_or_else(|error| panic!("{error}"));
        let done = work();
        attached.detach().unwrap_or_else(|error| panic!("{error}"));
        done
    })
}

/// A pod that says its number to everybody who connects with its port 80, until the sender is dropped.
fn server(last: u8) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
    let (ready, started) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let pod = in_pod(last, move || {
        let listener = TcpListener::bind("0.0.0.0:80").expect("port 80 is free in every pod");
        ready.send(()).expect("somebody waits");
        thread::spawn(move || {
            for client in listener.incoming() {
                let _ = client.expect("a client").write_all(&[last]);
            }
        });
        let _ = stopped.recv();
    });
    started.recv_timeout(DEADLINE).expect("the pod starts");
    (stop, pod)
}

fn ask(to: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE).expect("it answers");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("it speaks");
    said
}

fn same_port() {
    set_up();
    let pods: Vec<_> = [2, 3].into_iter().map(server).collect();
    for last in [2, 3] {
        let to = SocketAddr::from((address(last), 80));
        assert_eq!(ask(to), [last], "from the cluster's network");
        let said = in_pod(4, move || ask(to)).join().expect("the pod runs");
        assert_eq!(said, [last], "from another pod");
    }
    for (stop, pod) in pods {
        drop(stop);
        pod.join().expect("the pod ends");
    }
}

fn gateway() {
    set_up();
    let listener = TcpListener::bind((GATEWAY, 53)).expect("port 53 of the gateway");
    let served = thread::spawn(move || listener.accept().expect("a client").1);
    let outside = in_pod(2, || {
        TcpStream::connect_timeout(&(GATEWAY, 53).into(), DEADLINE).expect("the gateway");
        let own = TcpListener::bind((address(2), 0)).expect("its own address");
        TcpStream::connect_timeout(&own.local_addr().expect("an address"), DEADLINE).expect("itself");
        let lo = TcpListener::bind("127.0.0.1:0").expect("loopback");
        TcpStream::connect_timeout(&lo.local_addr().expect("an address"), DEADLINE).expect("loopback");
        TcpStream::connect_timeout(&([192, 0, 2, 1], 80).into(), DEADLINE).expect_err("there is no outside")
    });
    let outside = outside.join().expect("the pod runs");
    assert_eq!(
        served.join().expect("served").ip(),
        address(2),
        "nobody hides the pod's address"
    );
    assert_ne!(outside.kind(), std::io::ErrorKind::TimedOut, "it is told at once");
}

fn set_up_again() {
    set_up();
    let (stop, pod) = server(2);
    set_up();
    assert_eq!(ask((address(2), 80).into()), [2]);
    drop(stop);
    pod.join().expect("the pod ends");
    cluster::tear_down("petset-test").expect("it is there");
    cluster::tear_down("petset-test").expect("it is not there, which is what was wanted");
}

fn comes_back() {
    set_up();
    for _ in 0..5 {
        let (stop, pod) = server(2);
        assert_eq!(ask((address(2), 80).into()), [2]);
        drop(stop);
        pod.join().expect("the pod ends");
    }
}

fn hardware_address() -> String {
    // `/sys` would show the namespace that it was mounted in.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: `request` is plain data that the kernel fills in, and lives as long as the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(*b"petset-test") {
            *to = from as libc::c_char;
        }
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
        assert_eq!(libc::ioctl(descriptor, libc::SIOCGIFHWADDR, &mut request), 0);
        format!("{:x?}", &request.ifr_ifru.ifru_hwaddr.sa_data[..6])
    }
}

fn bridge_keeps() {
    set_up();
    let before = hardware_address();
    let pods: Vec<_> = (2..12).map(server).collect();
    assert_eq!(hardware_address(), before);
    for (stop, pod) in pods {
        drop(stop);
        pod.join().expect("the pod ends");
    }
}

fn networks() {
    set_up();
    let mut found = cluster::networks_but("petset-test").expect("routes");
    assert_eq!(found, []);
    let other = ClusterNetwork {
        bridge: "petset-other".into(),
        gateway: Ipv4Addr::new(10, 245, 0, 1),
        ..the_cluster()
    };
    cluster::set_up(&other).expect("one more");
    found = cluster::networks_but("petset-test").expect("routes");
    found.sort();
    assert!(found.contains(&(Ipv4Addr::new(10, 245, 0, 0), 16)), "{found:?}");
    assert!(
        !found.iter().any(|(network, _)| network.octets()[1] == 244),
        "{found:?}"
    );
}
