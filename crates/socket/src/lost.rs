//! What the kernel dropped because a socket's room was full, by its own table (`/proc/net/udp`).

use std::fs;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// Sockets, as the kernel numbers them, and what was lost at some that are closed.
#[derive(Debug, Clone, Default)]
pub struct Lost {
    inodes: Vec<u64>,
    before: u64,
}

impl Lost {
    /// Names sockets; one that the kernel does not tell the number of counts nothing.
    pub fn of<F: AsFd>(sockets: impl IntoIterator<Item = F>) -> Self {
        let inodes = sockets.into_iter().filter_map(|socket| Some(fstat(socket).ok()?.st_ino)).collect();
        Self { inodes, before: 0 }
    }

    /// Adds what was lost at sockets that are no more.
    #[must_use]
    pub const fn after(mut self, before: u64) -> Self {
        self.before = self.before.saturating_add(before);
        self
    }

    /// Adds other sockets.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.inodes.extend(&other.inodes);
        self.after(other.before)
    }

    /// Returns how many datagrams found no room so far; what the kernel does not tell counts as none.
    ///
    /// It reads tables of all sockets of the network namespace that this thread is in: nothing for the packet path.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
        let read = tables.iter().filter_map(|path| fs::read_to_string(path).ok());
        read.map(|table| self.sum(&table)).fold(self.before, u64::saturating_add)
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
  144: broken 4711
";
        let of = |inodes: &[u64]| Lost { inodes: inodes.to_vec(), before: 0 };
        assert_eq!(of(&[4711]).sum(table), 17);
        assert_eq!(of(&[4711]).and(&of(&[4712])).sum(table), 21);
        assert_eq!(of(&[47]).sum(table), 0);
        assert_eq!(of(&[4711]).sum(""), 0);
    }

    #[test]
    fn full_sockets_are_found_and_closed_ones_remembered() {
        let receivers = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let lost = Lost::of(&receivers);
        assert_eq!(lost.datagrams(), 0);
        setsockopt(&receivers[1], sockopt::RcvBuf, &4096).unwrap();
        for _ in 0..200 {
            sender.send_to(&[0; 1000], receivers[1].local_addr().unwrap()).unwrap();
        }
        let before = lost.datagrams();
        assert!(before > 0);
        assert_eq!(Lost::of(&receivers[..1]).datagrams(), 0);
        drop(receivers);
        assert_eq!((lost.datagrams(), lost.after(before).datagrams()), (0, before));
    }
}
