//! `/healthz` and `/metrics`, for the machine that the relay runs on.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Shared;

/// Runs until told to stop.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .with_state(shared);
    // A keep-alive connection of a scraper must not delay the end, hence no graceful shutdown.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        result = async { axum::serve(listener, router).await } => if let Err(error) = result {
            tracing::error!(reason = %error, "serving the metrics ended");
        }
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let census = shared.hub().census();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render(&census, shared.udp.lost()))
}
