//! The node's network interface: what it looks like and whether this machine has room for it.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_control::{ApiError, ErrorCode};
use mesh_identity::Roster;
use mesh_node::{BATCH, mac_of};
use mesh_session::Session;
use mesh_tun::{Bounds, Device, DeviceConfig, local_routes, overlapping};
use mesh_wire::NodeId;
use mesh_wire::roster::{Leaf, Link, RosterSettings};

use crate::config::Config;
use crate::one_line;

/// Checks that this machine can make an interface at all, before anything is stored or a ticket is used: makes one
/// without addresses and removes it.
///
/// # Errors
/// [`ErrorCode::Interface`].
pub async fn check_possible(config: &Config, link: Link) -> Result<(), ApiError> {
    let wanted = DeviceConfig {
        name: config.interface.clone(),
        mode: mode(link),
        mtu: config.mtu,
        mac: None,
        addresses: Vec::new(),
        offload: config.offload,
        bounds: None,
        routes: Vec::new(),
    };
    let device = Device::create(&wanted).await.map_err(|error| failed(&error))?;
    device.close().await.map_err(|error| failed(&error))
}

/// Checks that this machine can make the interface of a member: makes and removes it.
///
/// # Errors
/// As for [`create`].
pub async fn check(config: &Config, roster: &Roster, own: NodeId) -> Result<(), ApiError> {
    create(config, roster, own, 1).await?.close().await.map_err(|error| failed(&error))
}

/// Creates the interface of a member, with a queue for each of so many threads where the kernel makes them.
///
/// # Errors
/// [`ErrorCode::PoolOverlap`] naming the route that is in the way, or [`ErrorCode::Interface`].
pub async fn create(config: &Config, roster: &Roster, own: NodeId, queues: u16) -> Result<Device, ApiError> {
    let leaf = roster.leaf(&own).ok_or_else(|| {
        ApiError::new(ErrorCode::NotEnrolled, "this node is no longer a member of its network")
            .with_hint("ask for a new ticket: meshctl invite")
    })?;
    check_pool(roster.settings(), &config.interface).await?;
    let wanted = device_config(config, roster.settings(), leaf);
    Device::create_with_queues(&wanted, queues).await.map_err(|error| failed(&error))
}

/// Checks that no local route lies in the network's addresses or around them; default routes do not count.
///
/// # Errors
/// [`ErrorCode::PoolOverlap`] naming the route.
pub async fn check_pool(settings: &RosterSettings, interface: &str) -> Result<(), ApiError> {
    let pool = pool_of(settings);
    let routes = local_routes().await.map_err(|error| failed(&error))?;
    match overlapping(&pool, &routes, Some(interface)) {
        None => Ok(()),
        Some(route) => Err(ApiError::new(
            ErrorCode::PoolOverlap,
            format!(
                "the network's addresses {pool} overlap the route {} of this machine on {}",
                route.prefix, route.device
            ),
        )
        .with_hint(
            "remove that route, or make the network with another range: meshctl up --new … --ipv4-pool CIDR",
        )),
    }
}

/// Returns the MTU in force: the smaller of the network's and this node's.
#[must_use]
pub fn mtu(config: &Config, settings: &RosterSettings) -> u16 {
    config.mtu.min(settings.mtu)
}

fn pool_of(settings: &RosterSettings) -> IpNet {
    let (network, length) = (settings.ipv4_pool.network(), settings.ipv4_pool.prefix_len());
    Ipv4Net::new_assert(network, length).into()
}

fn device_config(config: &Config, settings: &RosterSettings, leaf: &Leaf) -> DeviceConfig {
    let ipv4 = Ipv4Net::new_assert(leaf.ipv4, settings.ipv4_pool.prefix_len());
    let ipv6 = Ipv6Net::new_assert(leaf.ipv6, 64);
    let tap = settings.link == Link::Tap;
    DeviceConfig {
        name: config.interface.clone(),
        mode: mode(settings.link),
        mtu: mtu(config, settings),
        mac: tap.then(|| mac_of(leaf.node_id)),
        addresses: vec![ipv4.into(), ipv6.into()],
        offload: config.offload,
        bounds: config.offload.then(|| bounds(mtu(config, settings))),
        routes: Vec::new(),
    }
}

/// As many segments in a packet of the device as leave in one message, so that none leaves in two.
fn bounds(mtu: u16) -> Bounds {
    let frame = Session::frame_len(usize::from(mtu));
    Bounds { segments: u32::try_from(BATCH / frame).unwrap_or(1), queue: DEVICE_QUEUE }
}

/// Packets in the kernel's queue of the device. Each may be of 64 KiB, so that a longer queue is a long wait.
const DEVICE_QUEUE: u32 = 500;

const fn mode(link: Link) -> mesh_tun::Mode {
    match link {
        Link::Tun => mesh_tun::Mode::Tun,
        Link::Tap => mesh_tun::Mode::Tap,
    }
}

fn failed(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::Interface, one_line(error))
}
