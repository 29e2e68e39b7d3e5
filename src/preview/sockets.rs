//! Asks the kernel which TCP sockets listen in this network namespace.
//!
//! `/proc/net/tcp` walks the connections of the whole host for every reader, some
//! milliseconds of a dev server's processor time on a host with much memory. The
//! kernel's `sock_diag` gives the listening sockets alone; the table is read only
//! where a kernel has no `sock_diag`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// The kernel's number for a socket that listens (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// Docker's own name server listens here in every container with its own network.
const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// A socket that takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListeningSocket {
    pub(super) port: u16,
    pub(super) address: IpAddr,
}

/// The kernel puts as many sockets into one message as fit a page or the reader's room.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Returns the sockets of both families that listen, in order and each once.
pub(super) fn listening() -> Vec<ListeningSocket> {
    let mut all = ask_kernel().unwrap_or_else(|error| {
        tracing::debug!(%error, "no sock_diag: reading the tables instead");
        read_tables()
    });
    all.retain(|socket| socket.address != DOCKER_DNS);
    all.sort();
    all.dedup();
    all
}

fn ask_kernel() -> io::Result<Vec<ListeningSocket>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // The kernel answers within the question; what is not there then never comes.
    socket.set_non_blocking(true)?;
    let mut all = list(&socket, AF_INET, SocketId::new_v4())?;
    // A kernel without IPv6 has no such sockets.
    all.extend(list(&socket, AF_INET6, SocketId::new_v6()).unwrap_or_default());
    Ok(all)
}

fn list(socket: &Socket, family: u8, socket_id: SocketId) -> io::Result<Vec<ListeningSocket>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    };
    let mut question = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut found = Vec::new();
    let mut room = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = socket.recv(&mut &mut room[..], 0)?;
        let mut rest = &room[..length];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let id = &response.header.socket_id;
                    found.push(ListeningSocket {
                        port: id.source_port,
                        address: id.source_address.to_canonical(),
                    });
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(found),
                _ => {}
            }
            // Messages begin at multiples of four bytes.
            let used = (answer.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(used..).unwrap_or_default();
        }
    }
}

fn read_tables() -> Vec<ListeningSocket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    // A kernel without IPv6 has no second table.
    let texts = tables.into_iter().filter_map(|table| std::fs::read_to_string(table).ok());
    texts.flat_map(|text| parse(&text).collect::<Vec<_>>()).collect()
}

/// Parses `/proc/net/tcp` or `/proc/net/tcp6`; lines it does not understand are left out.
fn parse(table: &str) -> impl Iterator<Item = ListeningSocket> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let listens = fields.nth(1)? == LISTEN;
        let socket = ListeningSocket {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
        };
        listens.then_some(socket)
    })
}

/// The kernel prints each 32-bit word in the byte order of the machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn check(table: &str, expected: &[(&str, u16)]) {
        let seen: Vec<_> = parse(table).map(|s| (s.address.to_string(), s.port)).collect();
        let expected: Vec<_> = expected.iter().map(|(a, p)| ((*a).to_owned(), *p)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn kernel_and_tables_tell_of_the_same_sockets() {
        let sockets = [
            std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            std::net::TcpListener::bind("[::1]:0").unwrap(),
            std::net::TcpListener::bind("127.0.0.11:0").unwrap(),
        ];
        let connected = std::net::TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        let of = |socket: &std::net::SocketAddr| ListeningSocket {
            port: socket.port(),
            address: socket.ip(),
        };
        let own: Vec<_> = sockets.iter().map(|s| of(&s.local_addr().unwrap())).collect();
        let kernel = ask_kernel().unwrap();
        for seen in [&kernel, &read_tables()] {
            assert!(own.iter().all(|socket| seen.contains(socket)), "{own:?} in {seen:?}");
            assert!(!seen.contains(&of(&connected.local_addr().unwrap())), "{seen:?}");
        }
        let told = listening();
        assert!(told.contains(&own[0]) && told.contains(&own[1]), "{told:?}");
        assert!(!told.contains(&own[2]), "Docker's name server is none: {told:?}");
    }

    #[test]
    fn many_sockets_come_in_many_messages() {
        let sockets: Vec<_> =
            (0..1000).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let seen = listening();
        for socket in &sockets {
            let port = socket.local_addr().unwrap().port();
            assert!(seen.iter().any(|seen| seen.port == port), "{port} is not among them");
        }
    }

    #[test]
    fn listening_sockets_are_named_with_their_address() {
        check(
            "  sl  local_address rem_address   st\n\
             \x20  0: 0100007F:1435 00000000:0000 0A 00000000:00000000 00:00000000\n\
             \x20  1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
             \x20  2: 0B00007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000\n\
             \x20  3: 0100007F:1435 0100007F:8000 01 00000000:00000000 00:00000000\n\
             garbage\n",
            &[("127.0.0.1", 5173), ("0.0.0.0", 8080), ("127.0.0.11", 40001)],
        );
        check(
            "  sl  local_address remote_address st\n\
             \x20  0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0:0\n\
             \x20  1: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 0:0\n\
             \x20  2: 0000000000000000FFFF00000100007F:0BBA 00000000000000000000000000000000:0000 0A 0:0\n",
            &[("::", 3000), ("::1", 3001), ("127.0.0.1", 3002)],
        );
    }
}
