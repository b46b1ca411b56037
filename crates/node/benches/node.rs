//! What finding a packet's peer costs: `cargo bench -p mesh-node`.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use divan::{Bencher, black_box};
use mesh_node::Routes;

fn main() {
    divan::main();
}

/// A thousand members with both addresses of their own and ten prefixes each: 10,000 prefixes of four lengths, most of them
/// /24, and a default route.
fn table() -> Routes<usize> {
    let mut routes = Routes::default();
    for member in 0..MEMBERS {
        routes.insert(own_v4(member), 32, member);
        routes.insert(own_v6(member), 128, member);
    }
    for number in 0..PREFIXES - 1 {
        let length = [24, 24, 24, 24, 24, 24, 26, 26, 28, 28][number % 10];
        routes.insert(network(number), length, number % MEMBERS);
    }
    routes.insert(Ipv4Addr::UNSPECIFIED.into(), 0, 0);
    routes
}

/// Addresses that no cache of the processor foresees, each looked up in turn.
fn look_up(bencher: Bencher<'_, '_>, address: impl Fn(usize) -> IpAddr) {
    let routes = table();
    let addresses: Vec<IpAddr> = (0..LOOKUPS).map(|number| address(number * STRIDE)).collect();
    let mut turn = addresses.iter().cycle();
    bencher.bench_local(|| routes.lookup(black_box(*turn.next().unwrap())).unwrap());
}

/// The member's own address, as most packets have it.
#[divan::bench]
fn own_address_v4(bencher: Bencher<'_, '_>) {
    look_up(bencher, |number| own_v4(number % MEMBERS));
}

#[divan::bench]
fn own_address_v6(bencher: Bencher<'_, '_>) {
    look_up(bencher, |number| own_v6(number % MEMBERS));
}

/// An address behind one of the 10,000 prefixes.
#[divan::bench]
fn prefix_of_10000(bencher: Bencher<'_, '_>) {
    look_up(bencher, |number| match network(number % (PREFIXES - 1)) {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | 9).into(),
        v6 @ IpAddr::V6(_) => v6,
    });
}

/// An address that only the default route covers: every length is tried.
#[divan::bench]
fn default_route_behind_10000(bencher: Bencher<'_, '_>) {
    look_up(bencher, |number| {
        Ipv4Addr::from_bits(0xc000_0000 | u32::try_from(number % 65_536).unwrap()).into()
    });
}

fn own_v4(member: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x6440_1001 + u32::try_from(member).unwrap()).into()
}

fn own_v6(member: usize) -> IpAddr {
    // The lower half of a real address is a part of a hash.
    let id = u128::try_from(member).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15) & u128::from(u64::MAX);
    Ipv6Addr::from_bits(0xfd12_3456_789a_0001 << 64 | id).into()
}

/// 10.0.0.0 and what follows, 256 addresses each.
fn network(number: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number * 256).unwrap()).into()
}

const MEMBERS: usize = 1000;
const PREFIXES: usize = 10_000;
const LOOKUPS: usize = 8192;
/// A prime, so that neighbours in time are none in the table.
const STRIDE: usize = 7919;
