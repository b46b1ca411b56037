//! The relays of a network as one node knows them. Pure.

use mesh_wire::{Pin, RelayUrl};

use super::{ANNOUNCED, CONFIGURED};
use crate::state::Membership;

/// A relay by its address and key.
pub(crate) type Named = (RelayUrl, Pin);

/// Where a node knows a relay from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The signed roster.
    Roster,
    /// The ticket, of a network whose roster announces none.
    Ticket,
    /// This node's own configuration.
    Config,
}

/// A relay of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) url: RelayUrl,
    pub(crate) pin: Pin,
    pub(crate) source: Source,
}

/// Returns the relays in order of preference: those of the roster, or of the ticket where the roster announces none,
/// then those of the configuration. A relay is its key: the configuration may give one of the roster another address.
pub(crate) fn of(membership: &Membership, configured: &[Named]) -> Vec<Known> {
    let announced = &membership.roster.settings().relays;
    together(announced, (&membership.relay, membership.pin), configured)
}

fn together(announced: &[Named], ticket: (&RelayUrl, Pin), configured: &[Named]) -> Vec<Known> {
    let mut list: Vec<Known> = Vec::new();
    let mut put = |url: &RelayUrl, pin: Pin, source| {
        if list.iter().all(|known| known.pin != pin) {
            list.push(Known { url: url.clone(), pin, source });
        }
    };
    for (url, pin) in announced.iter().take(ANNOUNCED) {
        put(url, *pin, Source::Roster);
    }
    if announced.is_empty() {
        put(ticket.0, ticket.1, Source::Ticket);
    }
    for (url, pin) in configured.iter().take(CONFIGURED) {
        put(url, *pin, Source::Config);
    }
    for (url, pin) in configured {
        if let Some(known) = list.iter_mut().find(|known| known.pin == *pin) {
            known.url.clone_from(url);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::RELAYS;

    fn named(name: &str, pin: u8) -> Named {
        (format!("wss://{name}.example").parse().unwrap(), Pin([pin; 32]))
    }

    fn list(announced: &[Named], ticket: &Named, configured: &[Named]) -> Vec<(String, Source)> {
        let list = together(announced, (&ticket.0, ticket.1), configured);
        list.into_iter().map(|known| (known.url.host().to_owned(), known.source)).collect()
    }

    #[test]
    fn roster_counts_before_the_ticket() {
        let (a, b, c) = (named("a", 1), named("b", 2), named("c", 3));
        assert_eq!(list(&[], &a, &[]), [("a.example".to_owned(), Source::Ticket)]);
        let both = list(std::slice::from_ref(&b), &a, &[c]);
        assert_eq!(
            both,
            [("b.example".to_owned(), Source::Roster), ("c.example".to_owned(), Source::Config)]
        );
    }

    #[test]
    fn configuration_gives_a_relay_another_address_but_no_second_place() {
        let (a, inside) = (named("a", 1), named("inside", 1));
        assert_eq!(
            list(std::slice::from_ref(&a), &a, &[inside]),
            [("inside.example".to_owned(), Source::Roster)]
        );
    }

    #[test]
    fn list_is_bounded() {
        let many: Vec<_> = (0..16).map(|number| named(&format!("r{number}"), number)).collect();
        let more: Vec<_> = (0..16).map(|number| named(&format!("c{number}"), 100 + number)).collect();
        assert_eq!(list(&many, &many[0], &more).len(), RELAYS);
    }
}
