//! Where process 0 listens, and at which addresses the others reach it.

use super::loss::host_text;
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The most addresses of one host.
const MOST_ADDRESSES: usize = 8;
/// How long the listener may take to answer itself.
const PROBE: Duration = Duration::from_millis(500);

/// Where process 0 listens for the others.
#[derive(Debug)]
pub struct Listener {
    pub(super) listener: TcpListener,
    port: u16,
    /// The host that the user stated.
    stated: Option<String>,
}

impl Listener {
    /// Listens at the stated host and port, or else at a free port, on all interfaces. The host only says how the others reach this one.
    ///
    /// # Errors
    /// If the operating system refuses, as when another program listens there.
    pub fn bind(address: Option<(String, u16)>) -> Result<Listener> {
        let (stated, port) = address.map_or((None, 0), |(host, port)| (Some(host), port));
        let place = if port == 0 { "a free port".to_string() } else { format!("port {port}") };
        let failed = |error: std::io::Error| {
            let todo = match error.kind() {
                ErrorKind::AddrInUse => "; choose another port, or end the program that listens there",
                ErrorKind::PermissionDenied => "; choose a port above 1023",
                _ => "",
            };
            Error::Run(format!("process 0 cannot listen at {place} for the other processes: {error}{todo}"))
        };
        let listener = all_interfaces(port).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Listener { listener, port, stated })
    }

    /// Listens at the first free one of the ports of a stated host.
    ///
    /// # Errors
    /// If the operating system refuses all of them.
    pub fn bind_first(host: &str, ports: RangeInclusive<u16>) -> Result<Listener> {
        let mut last = Err(Error::Usage(format!("no port of {host} is given")));
        for port in ports {
            last = Listener::bind(Some((host.to_string(), port)));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the names and addresses at which other processes may reach this one, the most likely first: the stated host, the name of
    /// this host, the addresses of its interfaces, and 127.0.0.1.
    pub fn addresses(&self) -> Vec<String> {
        let loopback = Ipv4Addr::LOCALHOST.to_string();
        let interfaces = interface_addresses().into_iter().map(|address| address.to_string());
        let mut all: Vec<String> = Vec::new();
        for address in self.stated.iter().cloned().chain([host_name()]).chain(interfaces) {
            if address != loopback && !all.contains(&address) && all.len() < MOST_ADDRESSES {
                all.push(address);
            }
        }
        all.push(loopback);
        all
    }
}

/// Listens on all interfaces, with IPv6 and IPv4 if the host has both.
fn all_interfaces(port: u16) -> std::io::Result<TcpListener> {
    let only_4 = || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) else { return only_4() };
    listener.set_nonblocking(true)?;
    // A setting of the system may keep IPv4 away from a socket of IPv6.
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr()?.port()));
    if TcpStream::connect_timeout(&own, PROBE).is_ok() {
        // This is the probe; if a process was quicker, it tries again.
        drop(listener.accept());
        return Ok(listener);
    }
    drop(listener);
    only_4()
}

/// Returns the name of this host.
pub fn host_name() -> String {
    for path in ["/proc/sys/kernel/hostname", "/etc/hostname"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let name = host_text(text.trim());
        if !name.is_empty() {
            return name;
        }
    }
    "localhost".to_string()
}

/// Returns the addresses of this host's interfaces, first those from which it reaches others.
fn interface_addresses() -> Vec<IpAddr> {
    let mut all = Vec::new();
    // No packet is sent: the operating system only chooses the interface. The addresses are those of documentation.
    for (own, other) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let chosen = UdpSocket::bind(own).and_then(|socket| {
            socket.connect(other)?;
            socket.local_addr()
        });
        all.extend(chosen.ok().map(|address| address.ip()));
    }
    all.extend(local_routes(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default()));
    all.retain(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified());
    all
}

/// Returns the local addresses in the routes of IPv4 that Linux lists.
fn local_routes(text: &str) -> Vec<IpAddr> {
    let (mut all, mut last) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        } else if line.ends_with("host LOCAL") {
            all.extend(last.filter(|address| !all.contains(address)));
        }
    }
    all
}

/// Returns the addresses of a host, for which the system may ask other machines; none after `limit`.
pub(super) fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, found) = std::sync::mpsc::channel();
    let name = host.to_string();
    let look = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // After the limit nobody waits.
        let _ = sender.send(found.map_err(|error| error.to_string()));
    };
    let thread = std::thread::Builder::new().name("watch resolve".to_string());
    thread.spawn(look).map_err(|error| error.to_string())?;
    found.recv_timeout(limit).unwrap_or_else(|_| Err("its name was not resolved in time".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_found_among_the_routes() {
        let text = "Local:\n  +-- 10.0.0.0/8 2 0 2\n     |-- 10.0.0.0\n        /8 link UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n\
                    |-- 10.255.255.255\n /32 link BROADCAST\n|-- 127.0.0.1\n  /32 host LOCAL\n|-- 10.0.0.5\n  /32 host LOCAL\n";
        let expected: Vec<IpAddr> = ["10.0.0.5", "127.0.0.1"].iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(local_routes(text), expected);
    }

    #[test]
    fn addresses_begin_with_the_stated_host_and_end_with_loopback() {
        let listener = Listener::bind(Some(("node1".to_string(), 0))).unwrap();
        let addresses = listener.addresses();
        assert_eq!((addresses[0].as_str(), addresses.last().unwrap().as_str()), ("node1", "127.0.0.1"));
        assert!(addresses.contains(&host_name()));
        TcpStream::connect(("127.0.0.1", listener.port())).unwrap();
        let taken = Listener::bind(Some(("node1".to_string(), listener.port()))).unwrap_err().to_string();
        assert!(taken.contains("choose another port"), "{taken}");
    }
}
