//! Sizes and counts that bound what a program accepts from outside.

/// Bytes of an ML-DSA-87 public key (FIPS 204, table 2).
pub const MLDSA_PUBLIC: usize = 2592;
/// Bytes of an ML-DSA-87 signature (FIPS 204, table 2).
pub const MLDSA_SIGNATURE: usize = 4627;
/// Bytes of an Ed25519 public key (RFC 8032).
pub const ED25519_PUBLIC: usize = 32;
/// Bytes of an Ed25519 signature (RFC 8032).
pub const ED25519_SIGNATURE: usize = 64;
/// Bytes of a composite public key: ML-DSA-87, then Ed25519.
pub const PUBLIC_IDENTITY: usize = MLDSA_PUBLIC + ED25519_PUBLIC;
/// Bytes of a composite signature: ML-DSA-87, then Ed25519.
pub const SIGNATURE: usize = MLDSA_SIGNATURE + ED25519_SIGNATURE;
/// Bytes of an ML-KEM-1024 encapsulation key (FIPS 203, table 3).
pub const KEM_PUBLIC: usize = 1568;
/// Bytes of an ML-KEM-1024 ciphertext (FIPS 203, table 3).
pub const KEM_CIPHERTEXT: usize = 1568;

/// Longest handshake message: a carrier delivers blobs up to this size.
pub const HANDSHAKE_MESSAGE: usize = 16 * 1024;
/// Longest payload that a relay forwards in one message.
pub const RELAY_PAYLOAD: usize = 64 * 1024;
/// Longest roster in bytes, 1 MiB: about 5,000 nodes.
pub const ROSTER: usize = 1024 * 1024;
/// Most nodes in a roster.
pub const ROSTER_NODES: usize = 4096;
/// Most revoked nodes that a roster remembers.
pub const REVOKED: usize = 4096;
/// Longest name of a node or a network: one DNS label (RFC 1035).
pub const NAME: usize = 63;
/// Longest name of a group.
pub const GROUP: usize = 32;
/// Most groups of one node.
pub const GROUPS: usize = 16;
/// Most inner prefixes that one node may use beside its own addresses.
pub const PREFIXES: usize = 16;
/// Longest relay URL.
pub const RELAY_URL: usize = 200;
/// Most relays that a roster announces.
pub const RELAYS: usize = 16;
/// Most lanes of one session (`docs/protocol.md`, "Data frames").
pub const LANES: usize = 16;
