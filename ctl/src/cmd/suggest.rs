//! Names close to one that no peer has.

use mesh_control::{Client, ClientError, ErrorCode};

use crate::failure::Failure;

/// The failure, with the nearest names as its hint when the peer is unknown.
pub(super) async fn peers(error: ClientError, name: &str, client: &Client) -> Failure {
    let unknown = error.code() == Some(ErrorCode::UnknownPeer);
    let failure = Failure::from(error);
    if !unknown {
        return failure;
    }
    let peers = client.peers().await.map(|answer| answer.peers).unwrap_or_default();
    let near = nearest(name, peers.iter().map(|peer| peer.name.as_str()));
    if near.is_empty() {
        return failure.with_hint("\"meshctl peers\" lists them");
    }
    let names: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
    failure.with_hint(format!("did you mean {}?", names.join(" or ")))
}

/// At most three names that a slip of the finger could have made into `name`, nearest first.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let wanted = name.to_lowercase();
    let mut near: Vec<(usize, &str)> = candidates
        .filter_map(|candidate| {
            let other = candidate.to_lowercase();
            let distance = distance(&wanted, &other);
            let begins = !wanted.is_empty() && other.starts_with(&wanted);
            (distance <= allowed || begins).then_some((distance, candidate))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// The number of single-character edits between two words (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let names = ["laptop", "pi", "pi2", "desktop", "server-frankfurt"];
        for (typed, expected) in [
            ("labtop", vec!["laptop"]),
            ("Laptop", vec!["laptop"]),
            ("p", vec!["pi", "pi2"]),
            ("serv", vec!["server-frankfurt"]),
            ("toaster", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(nearest(typed, names.into_iter()), expected, "{typed}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")), (3, 3, 0));
    }
}
