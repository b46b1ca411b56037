//! What the kernel dropped because a socket's room was full, by its own table (`/proc/net/udp`).

use std::fs;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// Returns how many datagrams the kernel dropped at these sockets so far; what it does not tell counts as none.
///
/// It reads tables of all sockets of the network namespace that this thread is in: nothing for the packet path.
pub(super) fn datagrams<F: AsFd>(sockets: impl Iterator<Item = F>) -> u64 {
    let inodes: Vec<u64> = sockets.filter_map(|socket| Some(fstat(socket).ok()?.st_ino)).collect();
    let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
    tables.iter().filter_map(|path| fs::read_to_string(path).ok()).map(|table| sum(&table, &inodes)).sum()
}

/// Sums up the last column of the lines whose tenth, the inode, is one of these.
fn sum(table: &str, inodes: &[u64]) -> u64 {
    let drops = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let inode = words.nth(9)?.parse().ok()?;
        inodes.contains(&inode).then(|| words.last()?.parse::<u64>().ok()).flatten()
    });
    drops.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn lines_of_the_own_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  142: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
  143: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 4
  144: broken 4711
";
        assert_eq!(sum(table, &[4711]), 17);
        assert_eq!(sum(table, &[4711, 4712]), 21);
        assert_eq!(sum(table, &[47]), 0);
        assert_eq!(sum("", &[4711]), 0);
    }

    #[test]
    fn full_socket_is_found() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(datagrams([&receiver].into_iter()), 0);
        super::super::room::ask(&receiver, 4096).unwrap();
        for _ in 0..200 {
            sender.send_to(&[0; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        assert!(datagrams([&receiver].into_iter()) > 0);
    }
}
