//! Events as a stream of server-sent events (WHATWG HTML section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use mesh_control::{Document, Event, EventKind};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Streams events until the listener leaves, the sender is gone, or `stop`.
///
/// The broadcast queue never waits for this listener; what it overwrote arrives as one `lagged` event.
pub(super) fn answer(
    receiver: broadcast::Receiver<Event>,
    stop: CancellationToken,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let events = BroadcastStream::new(receiver).filter_map(|item| async {
        let event = match item {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(missed)) => Event::now(EventKind::Lagged { missed }),
        };
        match event.to_json() {
            Ok(json) => Some(SseEvent::default().event(event.kind.as_str()).data(json)),
            Err(reason) => {
                error!(%reason, "an event has no JSON form");
                None
            }
        }
    });
    // The comment makes the headers leave at once, so that the caller knows from when on nothing is missed.
    let opening = stream::iter([SseEvent::default().comment("listening")]);
    let stream = opening.chain(events).take_until(stop.cancelled_owned()).map(Ok);
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// A third of what clients wait before they take the daemon for hung.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
