//! What the kernel dropped because the sockets of the port were full, by its own table (`/proc/net/udp`).

use std::fs;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// The sockets of the port, as the kernel numbers them.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    inodes: Vec<u64>,
}

impl Lost {
    pub(super) fn of<F: AsFd>(sockets: &[F]) -> Self {
        Self { inodes: sockets.iter().filter_map(|socket| Some(fstat(socket).ok()?.st_ino)).collect() }
    }

    /// Returns how many datagrams found no room so far; what the kernel does not tell counts as none.
    pub(crate) fn datagrams(&self) -> u64 {
        let tables = ["/proc/net/udp", "/proc/net/udp6"];
        let read = tables.iter().filter_map(|path| fs::read_to_string(path).ok());
        read.map(|table| self.sum(&table)).fold(0, u64::saturating_add)
    }

    /// Sums up the last column of the lines whose tenth, the inode, is one of these.
    fn sum(&self, table: &str) -> u64 {
        let drops = table.lines().skip(1).filter_map(|line| {
            let mut words = line.split_whitespace();
            let inode = words.nth(9)?.parse().ok()?;
            self.inodes.contains(&inode).then(|| words.last()?.parse::<u64>().ok()).flatten()
        });
        drops.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn lines_of_the_own_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  142: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
  143: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 4
";
        assert_eq!(Lost { inodes: vec![4712] }.sum(table), 4);
        assert_eq!(Lost { inodes: vec![4711, 4712] }.sum(table), 21);
        assert_eq!(Lost::default().sum(table), 0);
    }

    #[test]
    fn full_socket_is_found() {
        let receivers = [UdpSocket::bind("127.0.0.1:0").unwrap()];
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let lost = Lost::of(&receivers);
        assert_eq!(lost.datagrams(), 0);
        setsockopt(&receivers[0], sockopt::RcvBuf, &4096).unwrap();
        for _ in 0..200 {
            sender.send_to(&[0; 1000], receivers[0].local_addr().unwrap()).unwrap();
        }
        assert!(lost.datagrams() > 0);
    }
}
