//! The relay's state behind its sockets.

/// Lets clients of a relay come, go, bind and send as the bytes say.
pub fn hub(data: &[u8]) {
    meshrelay::drive_hub(data);
}
