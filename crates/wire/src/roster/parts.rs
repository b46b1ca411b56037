//! The roster file and the membership proof, cut into their parts.

use crate::codec::{Put, Reader};
use crate::limits::{PUBLIC_IDENTITY, REVOKED, ROSTER, ROSTER_NODES, SIGNATURE};
use crate::roster::{FORMAT, HEAD_LEN, Head, LEAF_MAX, SETTINGS_MAX};
use crate::{NodeId, WireError};

/// Most hashes on the path from a leaf to the Merkle root: 4096 leaves are 12 levels.
pub const PATH_MAX: usize = 12;
const _: () = assert!(1 << PATH_MAX == ROSTER_NODES, "the path reaches from any leaf to the root");
/// Most bytes of a membership proof with head and root keys.
pub const PROOF_MAX: usize =
    2 + PUBLIC_IDENTITY + HEAD_LEN + SIGNATURE + 8 + 4 + (2 + LEAF_MAX) + (1 + PATH_MAX * 32);

/// The parts of a roster file, in their order: `format 1 | root | head | signature | settings (u16 length) | count u16 |
/// revoked ids | leaves (u16 length each)`. The number of leaves stands in the head.
#[derive(Debug, Clone)]
pub struct RosterParts<'a> {
    /// Public keys of the root.
    pub root: &'a [u8; PUBLIC_IDENTITY],
    /// The encoded head.
    pub head: &'a [u8; HEAD_LEN],
    /// Composite signature of the root over the head.
    pub signature: &'a [u8; SIGNATURE],
    /// The encoded settings.
    pub settings: &'a [u8],
    /// Revoked node ids, rising strictly.
    pub revoked: Vec<NodeId>,
    /// The encoded leaves.
    pub leaves: Vec<&'a [u8]>,
}

impl<'a> RosterParts<'a> {
    /// Writes the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(FORMAT);
        out.put(self.root);
        out.put(self.head);
        out.put(self.signature);
        out.put_bytes16(self.settings);
        out.put_u16(u16::try_from(self.revoked.len()).expect("callers bound the revoked ids to 4096"));
        for id in &self.revoked {
            out.put(&id.0);
        }
        for leaf in &self.leaves {
            out.put_bytes16(leaf);
        }
        out
    }

    /// Cuts a file into its parts; settings and leaves are not parsed yet.
    ///
    /// # Errors
    /// [`WireError`] names what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() > ROSTER {
            return Err(WireError::TooLong("roster"));
        }
        let mut reader = Reader::new(bytes);
        read_format(&mut reader)?;
        let root = chunk(&mut reader)?;
        let head: &[u8; HEAD_LEN] = chunk(&mut reader)?;
        let signature = chunk(&mut reader)?;
        let settings = reader.bytes16(SETTINGS_MAX, "settings")?;

        let count = usize::from(reader.u16()?);
        if count > REVOKED {
            return Err(WireError::TooLong("list of revoked nodes"));
        }
        let mut revoked: Vec<NodeId> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = NodeId(reader.array()?);
            if revoked.last().is_some_and(|last| *last >= id) {
                return Err(WireError::Invalid("list of revoked nodes"));
            }
            revoked.push(id);
        }

        let count = Head::parse(head)?.leaf_count;
        let leaves =
            (0..count).map(|_| reader.bytes16(LEAF_MAX, "node")).collect::<Result<Vec<_>, WireError>>()?;
        reader.finish()?;
        Ok(Self { root, head, signature, settings, revoked, leaves })
    }
}

/// The parts of a membership proof: `format 1 | flags u8 | root keys, if flag 2 | head and signature, if flag 1 | version
/// u64 | index u32 | leaf (u16 length) | count u8 | path`. Root keys come only together with a head.
#[derive(Debug, Clone)]
pub struct ProofParts<'a> {
    /// Public keys of the root, for a verifier who knows only the network id.
    pub root: Option<&'a [u8; PUBLIC_IDENTITY]>,
    /// Encoded head and its signature, for a verifier whose roster is older.
    pub head: Option<(&'a [u8; HEAD_LEN], &'a [u8; SIGNATURE])>,
    /// Version of the roster that the path belongs to.
    pub version: u64,
    /// Place of the leaf among the leaves, from 0.
    pub index: u32,
    /// The encoded leaf.
    pub leaf: &'a [u8],
    /// Hashes from the leaf's sibling up to the root's child (RFC 9162, section 2.1.3).
    pub path: Vec<[u8; 32]>,
}

impl<'a> ProofParts<'a> {
    /// Writes the proof.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(FORMAT);
        let head = if self.head.is_some() { WITH_HEAD } else { 0 };
        let root = if self.root.is_some() { WITH_ROOT } else { 0 };
        out.put_u8(head | root);
        if let Some(root) = self.root {
            out.put(root);
        }
        if let Some((head, signature)) = self.head {
            out.put(head);
            out.put(signature);
        }
        out.put_u64(self.version);
        out.put_u32(self.index);
        out.put_bytes16(self.leaf);
        out.put_u8(u8::try_from(self.path.len()).expect("callers bound the path to 12 hashes"));
        for hash in &self.path {
            out.put(hash);
        }
        out
    }

    /// Cuts a proof into its parts; head and leaf are not parsed yet.
    ///
    /// # Errors
    /// [`WireError`] names what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        read_format(&mut reader)?;
        let (with_head, with_root) = match reader.u8()? {
            0 => (false, false),
            WITH_HEAD => (true, false),
            WITH_HEAD_AND_ROOT => (true, true),
            _ => return Err(WireError::Invalid("proof flags")),
        };
        let root = if with_root { Some(chunk(&mut reader)?) } else { None };
        let head = if with_head { Some((chunk(&mut reader)?, chunk(&mut reader)?)) } else { None };
        let version = reader.u64()?;
        let index = reader.u32()?;
        let leaf = reader.bytes16(LEAF_MAX, "node")?;
        let count = usize::from(reader.u8()?);
        if count > PATH_MAX {
            return Err(WireError::TooLong("Merkle path"));
        }
        let path = (0..count).map(|_| reader.array()).collect::<Result<Vec<_>, WireError>>()?;
        reader.finish()?;
        Ok(Self { root, head, version, index, leaf, path })
    }
}

fn read_format(reader: &mut Reader<'_>) -> Result<(), WireError> {
    match reader.u8()? {
        FORMAT => Ok(()),
        other => Err(WireError::Version(other)),
    }
}

fn chunk<'a, const N: usize>(reader: &mut Reader<'a>) -> Result<&'a [u8; N], WireError> {
    reader.bytes(N)?.try_into().map_err(|_| WireError::Truncated)
}

const WITH_HEAD: u8 = 1;
const WITH_ROOT: u8 = 2;
const WITH_HEAD_AND_ROOT: u8 = WITH_HEAD | WITH_ROOT;
