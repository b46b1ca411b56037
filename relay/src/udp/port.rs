//! The clients of the UDP port, their keys and addresses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use mesh_socket::Lost;
use mesh_wire::relay_udp::{Control, Offer, TAG};

use super::proof::{Bound, Proof};
use crate::bucket::Bucket;
use crate::hub::Member;
use crate::routes::Routes;

/// Which client is meant by a connection or an address.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    tables: RwLock<Tables>,
    /// Grows whenever an address gets another client, so that answers of [`Clients::at`] can be kept.
    changes: AtomicU64,
    port: Option<u16>,
    lost: Lost,
    /// That the kernel gives less room than wanted was told.
    room_told: AtomicBool,
}

#[derive(Debug, Default)]
struct Tables {
    connections: HashMap<u64, Arc<Client>>,
    addresses: HashMap<SocketAddr, Arc<Client>>,
}

impl Tables {
    /// Takes an address from a client, unless it is another one's by now.
    fn remove(&mut self, address: Option<SocketAddr>, client: &Arc<Client>) {
        if let Some(address) = address
            && self.addresses.get(&address).is_some_and(|other| Arc::ptr_eq(other, client))
        {
            self.addresses.remove(&address);
        }
    }
}

/// A connection that was offered the port.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) offer: Offer,
    pub(super) member: Member,
    key: hmac::Key,
    proof: Mutex<Proof>,
    routes: Mutex<Routes>,
    bucket: Arc<Mutex<Bucket>>,
}

/// What to answer to a control datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// These bytes, as many as were received.
    Send(Vec<u8>),
    /// Nothing: whoever sent it does not hold the key of that connection.
    Stranger,
    /// Nothing: it is old, of an address that was not proven, or beyond the client's rate.
    Stale,
}

impl Clients {
    /// `port` is what clients are offered; without one nobody is.
    pub(crate) fn new(port: Option<u16>, lost: Lost) -> Self {
        Self { port, lost, ..Self::default() }
    }

    /// Returns how many datagrams the kernel dropped because the port's sockets were full.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.datagrams()
    }

    /// Returns the longest round trip to a client with a proven address, as its proof showed it.
    pub(super) fn longest_trip(&self) -> Option<Duration> {
        self.read(|tables| tables.addresses.values().filter_map(|client| client.proof().trip()).max())
    }

    /// Says, once, whether nobody has said it before that the kernel gives too little room.
    pub(super) fn tells_of_room(&self) -> bool {
        !self.room_told.swap(true, Ordering::Relaxed)
    }

    pub(crate) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Makes an offer for a new connection.
    pub(crate) fn offer(&self) -> Option<Offer> {
        let port = self.port?;
        let [connection, up, down] = [random()?, random()?, random()?];
        let half = |bytes: [u8; 8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let connection = u64::from_le_bytes(connection);
        Some(Offer { port, connection, key: random()?, up: half(up), down: half(down) })
    }

    /// Adds a connection; `bucket` is the rate of its data.
    pub(crate) fn join(&self, offer: Offer, member: Member, bucket: Arc<Mutex<Bucket>>) -> Arc<Client> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &offer.key);
        // The key is needed for the tags only.
        let offer = Offer { key: [0; 32], ..offer };
        let (proof, routes) = (Mutex::default(), Mutex::default());
        let client = Arc::new(Client { offer, member, key, proof, routes, bucket });
        self.change(|tables| tables.connections.insert(offer.connection, client.clone()));
        client
    }

    /// Removes a connection and its address.
    pub(crate) fn leave(&self, client: &Arc<Client>) {
        let address = client.proof().address();
        self.change(|tables| {
            tables.connections.remove(&client.offer.connection);
            tables.remove(address, client);
        });
    }

    /// Takes UDP_END of this client.
    pub(crate) fn end(&self, client: &Arc<Client>) {
        let address = {
            let mut proof = client.proof();
            let address = proof.address();
            proof.end();
            address
        };
        if address.is_some() {
            self.change(|tables| tables.remove(address, client));
        }
    }

    /// Takes a control datagram; `cookie` are fresh random bytes.
    pub(crate) fn control(
        &self,
        datagram: &[u8],
        (from, local): (SocketAddr, Option<IpAddr>),
        cookie: [u8; 16],
        now: Instant,
    ) -> Answer {
        let Ok((control, covered, tag)) = Control::parse(datagram) else { return Answer::Stranger };
        let client = self.read(|tables| tables.connections.get(&control.connection).cloned());
        let Some(client) = client.filter(|client| client.tag(covered) == Some(tag)) else {
            return Answer::Stranger;
        };
        if !client.permits(datagram.len(), now) {
            return Answer::Stale;
        }
        let (before, after, answer) = {
            let mut proof = client.proof();
            let before = proof.address();
            let answer = proof.handle(&control, (from, datagram.len()), cookie, now);
            proof.arrived_at(from, local);
            (before, proof.address(), answer)
        };
        if before != after {
            self.change(|tables| {
                tables.remove(before, &client);
                tables.addresses.extend(after.map(|after| (after, client.clone())));
            });
        }
        answer.map_or(Answer::Stale, |answer| {
            Answer::Send(answer.encode(datagram.len(), |covered| client.tag(covered).unwrap_or([0; TAG])))
        })
    }

    /// Returns whose proven address this is. The answer holds while [`Clients::changes`] stays the same.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<Arc<Client>> {
        self.read(|tables| tables.addresses.get(&address).cloned())
            .filter(|client| client.proof().is_from(address))
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) {
        change(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Client {
    /// Returns where data goes now.
    pub(crate) fn target(&self, now: Instant) -> Option<Bound> {
        self.proof().target(now)
    }

    /// Takes this much of the client's rate unless it is used up: as over the WebSocket, the last run may exceed it.
    pub(super) fn permits(&self, bytes: usize, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let permitted = bucket.wait().is_none_or(|until| until <= now);
        if permitted {
            bucket.take(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)), now);
        }
        permitted
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self, covered: &[u8]) -> Option<[u8; TAG]> {
        hmac::sign(&self.key, covered).as_ref().first_chunk().copied()
    }
}

/// Returns `None` when the system's random generator fails, in which case nobody is offered anything.
pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_wire::relay_udp::Kind;
    use mesh_wire::{NetId, NodeId};

    fn offer(connection: u64) -> Offer {
        Offer { port: 1, connection, key: [u8::try_from(connection).unwrap(); 32], up: 5, down: 6 }
    }

    fn datagram(key: u8, control: Control) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]);
        control.encode(100, |covered| *hmac::sign(&key, covered).as_ref().first_chunk().unwrap())
    }

    fn join(clients: &Clients, connection: u64) -> Arc<Client> {
        let member = Member { party: (NetId([0; 32]), NodeId([0; 32])), connection };
        let bucket = Arc::new(Mutex::new(Bucket::new(0.0, 1.0, Instant::now())));
        clients.join(offer(connection), member, bucket)
    }

    fn ask(counter: u64) -> Control {
        Control { kind: Kind::Ask, connection: 1, counter, cookie: [0; 16] }
    }

    #[test]
    fn only_the_holder_of_the_key_is_answered_and_not_twice() {
        let clients = Clients::default();
        let from = SocketAddr::from(([192, 0, 2, 1], 1));
        let now = Instant::now();
        let client = join(&clients, 1);
        join(&clients, 2);
        let stranger = |bytes: &[u8]| clients.control(bytes, (from, None), [9; 16], now);
        assert_eq!(stranger(&[0; 100]), Answer::Stranger);
        assert_eq!(stranger(&datagram(2, ask(1))), Answer::Stranger, "the key of another connection");
        assert_eq!(stranger(&datagram(3, Control { connection: 3, ..ask(1) })), Answer::Stranger);
        let Answer::Send(challenge) = stranger(&datagram(1, ask(1))) else { panic!("no challenge") };
        assert_eq!(challenge.len(), 100);
        assert_eq!(stranger(&datagram(1, ask(1))), Answer::Stale);
        assert!(clients.at(from).is_none());
        let proof = datagram(1, Control { kind: Kind::Proof, cookie: [9; 16], ..ask(1) });
        assert!(matches!(stranger(&proof), Answer::Send(_)));
        assert!(clients.at(from).is_some());
        assert_eq!(client.target(now).map(|bound| (bound.address, bound.limit)), Some((from, 100)));
        clients.end(&client);
        assert!(clients.at(from).is_none());
    }

    #[test]
    fn an_address_that_another_client_proved_stays_with_it() {
        let clients = Clients::default();
        let [shared, other] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let now = Instant::now();
        let bind = |connection: u64, counter, at| {
            let control = Control { connection, ..ask(counter) };
            let key = u8::try_from(connection).unwrap();
            clients.control(&datagram(key, control), (at, None), [9; 16], now);
            let proof = Control { kind: Kind::Proof, cookie: [9; 16], ..control };
            assert!(matches!(
                clients.control(&datagram(key, proof), (at, None), [0; 16], now),
                Answer::Send(_)
            ));
        };
        join(&clients, 1);
        let second = join(&clients, 2);
        bind(1, 1, shared);
        bind(2, 1, shared);
        bind(1, 2, other);
        assert!(clients.at(shared).is_some_and(|client| Arc::ptr_eq(&client, &second)));
    }

    #[test]
    fn what_exceeds_the_rate_is_not_taken() {
        let clients = Clients::default();
        let now = Instant::now();
        let member = Member { party: (NetId([0; 32]), NodeId([0; 32])), connection: 1 };
        let bucket = Arc::new(Mutex::new(Bucket::new(1000.0, 100.0, now)));
        let client = clients.join(offer(1), member, bucket);
        assert!(client.permits(600, now), "a run may be longer than the burst");
        assert!(!client.permits(1, now));
        let from = SocketAddr::from(([192, 0, 2, 1], 1));
        assert_eq!(clients.control(&datagram(1, ask(1)), (from, None), [9; 16], now), Answer::Stale);
        let later = now + Duration::from_millis(501);
        let answer = clients.control(&datagram(1, ask(1)), (from, None), [9; 16], later);
        assert!(matches!(answer, Answer::Send(_)));
    }

    #[test]
    fn an_address_leaves_with_its_connection() {
        let clients = Clients::default();
        let from = SocketAddr::from(([192, 0, 2, 1], 1));
        let now = Instant::now();
        join(&clients, 1);
        clients.control(&datagram(1, ask(1)), (from, None), [9; 16], now);
        let before = clients.changes();
        clients.control(
            &datagram(1, Control { kind: Kind::Proof, cookie: [9; 16], ..ask(1) }),
            (from, None),
            [0; 16],
            now,
        );
        assert!(clients.at(from).is_some() && clients.changes() > before);
        clients.leave(&clients.read(|tables| tables.connections[&1].clone()));
        assert!(clients.at(from).is_none());
        assert_eq!(clients.control(&datagram(1, ask(2)), (from, None), [9; 16], now), Answer::Stranger);
    }
}
