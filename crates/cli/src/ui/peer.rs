//! Whose program is at the other end of a connection over loopback, which any user of the machine can make.

use std::{fs, io, net::SocketAddrV4};

/// The user whose socket is at the other end; `None` when there is none any more.
///
/// # Errors
/// When the kernel does not tell.
pub fn user(here: SocketAddrV4, there: SocketAddrV4) -> io::Result<Option<u32>> {
    Ok(find(&fs::read_to_string("/proc/net/tcp")?, here, there))
}

/// In /proc/net/tcp (Documentation/networking/proc_net_tcp.rst of the kernel).
fn find(table: &str, here: SocketAddrV4, there: SocketAddrV4) -> Option<u32> {
    // Addresses stand there in the byte order of memory, ports in that of people.
    let written =
        |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let (from, to) = (written(there), written(here));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next() == Some(&from) && fields.next() == Some(&to);
        // State, queues, timer and retransmissions stand between.
        is_it.then(|| fields.nth(4)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_of_the_other_end_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (here, peer) = listener.accept().unwrap();
        let (SocketAddr::V4(local), SocketAddr::V4(peer)) = (here.local_addr().unwrap(), peer) else {
            unreachable!()
        };
        let own = rustix::process::getuid().as_raw();
        assert_eq!(user(local, peer).unwrap(), Some(own));
        drop((here, there, listener));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_line_of_the_other_end_is_found() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 x 100 0 0 10 0
   1: 0100007F:0FA0 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 x 20 0 0 10 -1
   2: 0100007F:D431 0100007F:0FA0 01 00000000:00000000 00:00000000 00000000  1001        0 13 1 x 20 0 0 10 -1
   3: 0100007F:D432 0100007F:0FA0 01 000
";
        let here = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(find(table, here, "127.0.0.1:54321".parse().unwrap()), Some(1001));
        assert_eq!(find(table, here, "127.0.0.1:54322".parse().unwrap()), None);
        assert_eq!(find(table, here, "127.0.0.1:1".parse().unwrap()), None);
        assert_eq!(find("", here, here), None);
    }
}
