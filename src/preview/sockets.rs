//! Reads the kernel's table of TCP sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Parses `/proc/net/tcp` or `/proc/net/tcp6`; lines it does not understand are left out.
pub(super) fn parse(table: &str) -> impl Iterator<Item = ListeningSocket> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let listens = fields.nth(1)? == LISTEN;
        let socket = ListeningSocket {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
        };
        (listens && socket.address != DOCKER_DNS).then_some(socket)
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
    fn listening_sockets_are_named_with_their_address() {
        check(
            "  sl  local_address rem_address   st\n\
             \x20  0: 0100007F:1435 00000000:0000 0A 00000000:00000000 00:00000000\n\
             \x20  1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
             \x20  2: 0B00007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000\n\
             \x20  3: 0100007F:1435 0100007F:8000 01 00000000:00000000 00:00000000\n\
             garbage\n",
            &[("127.0.0.1", 5173), ("0.0.0.0", 8080)],
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
