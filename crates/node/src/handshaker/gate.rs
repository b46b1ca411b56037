//! What a stranger meets: rates per origin, a measure of load, cookies.
//!
//! A HELLO comes here only once it has shown that its sender, or somebody whom he copies, knows the network secret.
//! Under load it has to show with a cookie that the sender receives where it sends from, so that one host cannot pose
//! as many.

use std::time::{Duration, Instant};

use mesh_session::handshake::{CookieJar, Network};
use mesh_wire::NodeId;
use mesh_wire::cookie::NONCE;

use crate::bucket::{Bucket, Buckets, Rate};
use crate::path::{Origin, Path};

/// HELLOs answered for one origin: 70 us of key exchange each.
const HELLOS: Rate = Rate { per_second: 5, burst: 20 };
/// HELLOs answered for all origins together: 1.5 % of a core, and a network of 400 that comes up at once in two seconds.
const ALL_HELLOS: Rate = Rate { per_second: 200, burst: 400 };
/// More HELLOs than this are load: as many as are answered in the long run.
const CALM: Rate = Rate { per_second: 200, burst: 200 };
/// So many messages in the queue are load.
const BACKLOG: usize = 64;
/// Load lasts at least this long, so that a node under it does not waver.
const LOADED: Duration = Duration::from_secs(1);
/// COOKIEs sent for all origins together: 1 % of a core.
const COOKIES: Rate = Rate { per_second: 2000, burst: 500 };
/// RESPONSEs judged for all origins together: 400 us of signature checks each.
const RESPONSES: Rate = Rate { per_second: 100, burst: 400 };

/// RESPONSEs judged for one origin: a member that sends wrong signatures leaves room for the others.
const RESPONSES_OF_ONE: Rate = Rate { per_second: 5, burst: 30 };

/// The gate of one node.
#[derive(Debug, Default)]
pub(super) struct Gate {
    origins: Buckets,
    answered: Bucket,
    calm: Bucket,
    cookies: Bucket,
    initiators: Buckets,
    responses: Bucket,
    loaded_until: Option<Instant>,
    jar: Option<CookieJar>,
}

/// What to do about a HELLO.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answer,
    /// Send this COOKIE.
    Cookie(Vec<u8>),
    Refuse,
}

impl Gate {
    /// Judges a HELLO that is keyed by the network; `backlog` is how many messages wait behind it.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        (network, own): (&Network, NodeId),
        (from, hello): (Path, &[u8]),
        backlog: usize,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Verdict {
        if !self.calm.take(now, CALM) {
            self.loaded_until = Some(now + LOADED);
        }
        let mut proven = false;
        if self.is_loaded(now, backlog) {
            proven = self.jar(now, (network, own), random).checks(hello, &from.into());
            if !proven {
                return self.cookie(now, (from, hello), random);
            }
        }
        // Whoever claims many addresses can empty the bucket of any one of them: its owner then proves that it is his.
        if !self.origins.take(now, from.origin(), HELLOS) {
            if !proven && !self.jar(now, (network, own), random).checks(hello, &from.into()) {
                return self.cookie(now, (from, hello), random);
            }
            if !self.origins.take(now, Origin::Proven(from), HELLOS) {
                return Verdict::Refuse;
            }
        }
        if self.answered.take(now, ALL_HELLOS) { Verdict::Answer } else { Verdict::Refuse }
    }

    /// Tells whether there is load; `backlog` is how many messages wait.
    pub(super) fn is_loaded(&mut self, now: Instant, backlog: usize) -> bool {
        if backlog > BACKLOG {
            self.loaded_until = Some(now + LOADED);
        }
        self.loaded_until.is_some_and(|until| now < until)
    }

    /// Tells whether one more RESPONSE may be judged.
    pub(super) fn judges_response(&mut self, now: Instant, from: Path) -> bool {
        self.initiators.take(now, from.origin(), RESPONSES_OF_ONE) && self.responses.take(now, RESPONSES)
    }

    fn cookie(
        &mut self,
        now: Instant,
        (from, hello): (Path, &[u8]),
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Verdict {
        if !self.cookies.take(now, COOKIES) {
            return Verdict::Refuse;
        }
        let mut nonce = [0; NONCE];
        random(&mut nonce);
        let reply = self.jar.as_ref().map(|jar| jar.make_reply(hello, &from.into(), &nonce));
        match reply {
            Some(Ok(message)) => Verdict::Cookie(message),
            Some(Err(_)) | None => Verdict::Refuse,
        }
    }

    /// Returns the jar, with a secret that is young enough.
    fn jar(
        &mut self,
        now: Instant,
        (network, own): (&Network, NodeId),
        random: &mut dyn FnMut(&mut [u8]),
    ) -> &CookieJar {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        match &mut self.jar {
            Some(jar) if jar.due() <= now => {
                random(&mut secret[..]);
                jar.rotate(now, &secret);
            }
            Some(_) | None => {}
        }
        self.jar.get_or_insert_with(|| {
            random(&mut secret[..]);
            CookieJar::new(network, own, now, &secret)
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use mesh_session::handshake::{AwaitChallenge, Local, Purpose, with_cookie};
    use mesh_session::{AeadKind, ProviderKind};
    use mesh_wire::NetId;
    use zeroize::Zeroizing;

    use super::*;

    const OWN: NodeId = NodeId([4; 32]);

    struct Setting {
        network: Network,
        hello: Vec<u8>,
        now: Instant,
        gate: Gate,
        random: u8,
    }

    fn setting() -> Setting {
        let identity = mesh_identity::Identity::from_seeds(&[1; 32], &[1; 32]).unwrap();
        let local = Local {
            identity: std::sync::Arc::new(identity),
            provider: ProviderKind::AwsLc.provider(),
            aead: AeadKind::AwsLc.provider(),
        };
        let network = Network::new(NetId([1; 32]), Zeroizing::new([2; 32]), Purpose::Member);
        let (_, hello) = AwaitChallenge::start(&local, &network, OWN, 7, [3; 32]).unwrap();
        Setting { network, hello, now: Instant::now(), gate: Gate::default(), random: 0 }
    }

    fn udp(host: u32) -> Path {
        Path::Udp((std::net::Ipv4Addr::from_bits(0x0a00_0000 | host), 4747).into())
    }

    impl Setting {
        fn judge(&mut self, from: Path, hello: &[u8], backlog: usize) -> Verdict {
            let mut random = |bytes: &mut [u8]| {
                self.random = self.random.wrapping_add(1);
                bytes.fill(self.random);
            };
            self.gate.judge(self.now, (&self.network, OWN), (from, hello), backlog, &mut random)
        }
    }

    #[test]
    fn one_origin_has_its_rate() {
        let mut setting = setting();
        let hello = setting.hello.clone();
        let answered = (0..30).filter(|_| setting.judge(udp(1), &hello, 0) == Verdict::Answer).count();
        assert_eq!(answered, 20);
        assert_eq!(setting.judge(udp(2), &hello, 0), Verdict::Answer);
        setting.now += Duration::from_secs(1);
        let answered = (0..30).filter(|_| setting.judge(udp(1), &hello, 0) == Verdict::Answer).count();
        assert_eq!(answered, 5);
    }

    #[test]
    fn address_that_others_claim_is_let_in_with_a_cookie() {
        let mut setting = setting();
        let hello = setting.hello.clone();
        for _ in 0..25 {
            setting.judge(udp(1), &hello, 0);
        }
        let Verdict::Cookie(message) = setting.judge(udp(1), &hello, 0) else { panic!("no cookie") };
        let cookie = setting.network.open_cookie(&message, &hello, OWN).unwrap();
        let proven = with_cookie(&hello, &cookie).unwrap();
        let answered = (0..30).filter(|_| setting.judge(udp(1), &proven, 0) == Verdict::Answer).count();
        assert_eq!(answered, 20, "with a rate of its own");
    }

    #[test]
    fn load_calls_for_a_cookie_that_only_its_source_can_use() {
        let mut setting = setting();
        let hello = setting.hello.clone();
        let Verdict::Cookie(message) = setting.judge(udp(1), &hello, BACKLOG + 1) else {
            panic!("no cookie under load")
        };
        let cookie = setting.network.open_cookie(&message, &hello, OWN).unwrap();
        let proven = with_cookie(&hello, &cookie).unwrap();
        assert_eq!(setting.judge(udp(1), &proven, 0), Verdict::Answer);
        assert!(matches!(setting.judge(udp(2), &proven, 0), Verdict::Cookie(_)));
        setting.now += LOADED;
        assert_eq!(setting.judge(udp(3), &hello, 0), Verdict::Answer, "calm again");
    }

    #[test]
    fn flood_of_copies_leaves_room_for_those_who_prove_their_address() {
        let mut setting = setting();
        let hello = setting.hello.clone();
        let mut cookies = 0;
        let mut answered = 0;
        for host in 0..20_000 {
            match setting.judge(udp(host), &hello, 0) {
                Verdict::Answer => answered += 1,
                Verdict::Cookie(_) => cookies += 1,
                Verdict::Refuse => {}
            }
        }
        assert_eq!((answered, cookies), (200, 500), "both are bounded");
        setting.now += Duration::from_millis(500);
        let Verdict::Cookie(message) = setting.judge(udp(77_777), &hello, 1000) else {
            panic!("an honest HELLO gets no cookie")
        };
        let cookie = setting.network.open_cookie(&message, &hello, OWN).unwrap();
        let proven = with_cookie(&hello, &cookie).unwrap();
        assert_eq!(setting.judge(udp(77_777), &proven, 1000), Verdict::Answer);
    }

    #[test]
    fn cookie_ends_with_its_secret() {
        let mut setting = setting();
        let hello = setting.hello.clone();
        let Verdict::Cookie(message) = setting.judge(udp(1), &hello, BACKLOG + 1) else { panic!() };
        let cookie = setting.network.open_cookie(&message, &hello, OWN).unwrap();
        let proven = with_cookie(&hello, &cookie).unwrap();
        setting.now += Duration::from_secs(121);
        assert_eq!(setting.judge(udp(1), &proven, BACKLOG + 1), Verdict::Answer, "previous secret");
        setting.now += Duration::from_secs(121);
        assert!(matches!(setting.judge(udp(1), &proven, BACKLOG + 1), Verdict::Cookie(_)));
    }
}
