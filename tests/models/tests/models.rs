//! Runs each model as the programs are, and with its wake-up taken out, which it has to notice.
//!
//! Faults put into the files themselves are noticed, too: the inbox that looks whether it is empty before it takes its
//! lock, that leaves a rest without a wake-up, or that counts a batch after taking it; a change of the relay client's queue
//! that wakes nobody; a limit that counts as passed one byte later than the engine waits for it; an outbox that closes
//! silently.

use mesh_models::WakeUp::{IsLost, Works};
use mesh_models::{engine, handshakes, quic, relay_client, relay_server};

#[test]
fn engine_sees_everything_that_waits() {
    engine::nothing_waits_unseen(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn engine_that_is_not_woken_is_noticed() {
    engine::nothing_waits_unseen(IsLost);
}

#[test]
fn worker_sees_all_of_its_post() {
    engine::no_mail_waits_unseen(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn worker_that_is_not_woken_is_noticed() {
    engine::no_mail_waits_unseen(IsLost);
}

#[test]
fn inbox_is_bounded_and_counts() {
    engine::room_is_bounded();
}

#[test]
fn quic_endpoint_is_told_of_room() {
    engine::quic_is_told_of_room();
}

#[test]
fn handshake_thread_sees_everything_that_waits() {
    handshakes::nothing_waits_unseen();
}

#[test]
fn relay_client_writes_everything_that_waits() {
    relay_client::nothing_waits_unwritten(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn relay_client_that_is_not_woken_is_noticed() {
    relay_client::nothing_waits_unwritten(IsLost);
}

#[test]
fn relay_client_tells_of_room() {
    relay_client::room_is_told(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn room_that_is_not_told_is_noticed() {
    relay_client::room_is_told(IsLost);
}

#[test]
fn relay_writes_the_farewell() {
    relay_server::farewell_is_written(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn relay_task_that_is_not_woken_is_noticed() {
    relay_server::farewell_is_written(IsLost);
}

#[test]
fn quic_endpoint_sees_everything_that_waits() {
    quic::nothing_waits_unseen(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn quic_endpoint_that_is_not_woken_is_noticed() {
    quic::nothing_waits_unseen(IsLost);
}

#[test]
fn quic_endpoint_sends_once_there_is_room() {
    quic::room_is_told(Works);
}

#[test]
#[should_panic(expected = "deadlock")]
fn quic_endpoint_that_is_not_told_of_room_is_noticed() {
    quic::room_is_told(IsLost);
}
