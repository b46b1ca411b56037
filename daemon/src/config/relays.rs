//! Relays of the configuration.

use mesh_wire::{Pin, RelayUrl};
use serde::Deserialize;

use crate::relays::CONFIGURED;

/// What `relays` holds: addresses with keys, as `meshrelay` prints them.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(super) struct Relays(pub(super) Vec<(RelayUrl, Pin)>);

impl TryFrom<Vec<String>> for Relays {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        if texts.len() > CONFIGURED {
            return Err(format!("relays: {} relays; {CONFIGURED} are the most", texts.len()));
        }
        let mut relays: Vec<(RelayUrl, Pin)> = Vec::new();
        for text in texts {
            let parsed =
                RelayUrl::parse_with_pin(&text).map_err(|error| format!("relays: {text}: {error}"))?;
            let (url, Some(pin)) = parsed else {
                return Err(format!(
                    "relays: {text}: the relay's key is missing; write {text}#PIN, as the relay prints it"
                ));
            };
            if relays.iter().any(|(_, known)| *known == pin) {
                return Err(format!("relays: {text}: the relay with this key stands there twice"));
            }
            relays.push((url, pin));
        }
        Ok(Self(relays))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_need_a_key_and_stand_there_once() {
        let (one, two) =
            (format!("wss://a.example#{}", Pin([1; 32])), format!("wss://b.example#{}", Pin([2; 32])));
        let read = |texts: &[&str]| {
            Relays::try_from(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&[&one, &two]).unwrap().0.len(), 2);
        for (texts, part) in [
            (vec!["wss://a.example"], "key is missing"),
            (vec!["a.example"], "wss://"),
            (vec![&one[..], &one], "twice"),
            (vec!["wss://a.example"; CONFIGURED + 1], "the most"),
        ] {
            let refused = read(&texts).unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
