//! The Merkle tree of RFC 9162, section 2.1, with SHA-256.

use crate::hash::sha256;

/// Returns the hash of an encoded leaf.
pub(super) fn leaf_hash(leaf: &[u8]) -> [u8; 32] {
    sha256(&[&[0], leaf])
}

/// Returns the Merkle tree hash over leaf hashes (section 2.1.1).
pub(super) fn root(hashes: &[[u8; 32]]) -> [u8; 32] {
    match hashes {
        [] => sha256(&[]),
        [only] => *only,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// Returns the inclusion path of the leaf at `index`, from the bottom up (section 2.1.3.1).
pub(super) fn path(index: usize, hashes: &[[u8; 32]]) -> Vec<[u8; 32]> {
    if hashes.len() < 2 {
        return Vec::new();
    }
    let k = split(hashes.len());
    let (left, right) = hashes.split_at(k);
    let (mut path, sibling) =
        if index < k { (path(index, left), root(right)) } else { (path(index - k, right), root(left)) };
    path.push(sibling);
    path
}

/// Returns the tree hash that a path leads to, or `None` when no tree of `size` leaves has such a path (section 2.1.3.2).
pub(super) fn root_of(index: u32, size: u32, leaf: [u8; 32], path: &[[u8; 32]]) -> Option<[u8; 32]> {
    if index >= size {
        return None;
    }
    let (mut fn_, mut sn, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if sn == 0 {
            return None;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            hash = node_hash(sibling, &hash);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    (sn == 0).then_some(hash)
}

fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    sha256(&[&[1], left, right])
}

/// Returns the greatest power of two below `len`, which is at least 2.
const fn split(len: usize) -> usize {
    len.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(n: usize) -> Vec<[u8; 32]> {
        (0..n).map(|i| leaf_hash(&i.to_le_bytes())).collect()
    }

    /// The test tree of the Certificate Transparency code (`merkletree/tree_test.go` and others share it).
    #[test]
    fn known_trees_have_their_hashes() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
            .map(|leaf| leaf_hash(&hex(leaf)));
        for (n, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (4, "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            (6, "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
            (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        ] {
            assert_eq!(root(&leaves[..n]).as_slice(), hex(expected));
        }
    }

    #[test]
    fn every_path_leads_to_the_root_and_no_other_does() {
        for n in 1..40_usize {
            let hashes = hashes(n);
            let size = u32::try_from(n).unwrap();
            for (i, hash) in hashes.iter().enumerate() {
                let path = path(i, &hashes);
                let index = u32::try_from(i).unwrap();
                assert_eq!(root_of(index, size, *hash, &path), Some(root(&hashes)));
                for other in (0..=size).filter(|other| *other != index) {
                    assert_ne!(root_of(other, size, *hash, &path), Some(root(&hashes)));
                }
                let longer = [path.as_slice(), &[[0; 32]]].concat();
                assert_eq!(root_of(index, size, *hash, &longer), None);
                if let Some((_, shorter)) = path.split_last() {
                    assert_eq!(root_of(index, size, *hash, shorter), None);
                }
            }
        }
    }
}
