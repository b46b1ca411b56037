//! Routes, what each takes, and the form of every refusal.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mesh_control::{
    ApiError, Document, DocumentError, ErrorCode, InviteRequest, PeerStatus, Peers, PingRequest,
    RelayRequest, UpRequest, Version,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::connection::Caller;
use super::{Backend, PROTOCOL, events};

/// The document that `GET /v1/openapi.json` answers with.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The routes over `backend`; expects a [`Caller`] among the extensions of every request.
pub(super) fn router<B: Backend>(backend: Arc<B>, stop: CancellationToken) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/id", get(id::<B>))
        .route("/v1/status", get(status::<B>))
        .route("/v1/peers", get(peers::<B>))
        .route("/v1/peers/{name}", get(peer::<B>))
        .route("/v1/events", get(listen::<B>))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/up", post(up::<B>))
        .route("/v1/down", post(down::<B>))
        .route("/v1/ping", post(ping::<B>))
        .route("/v1/netcheck", post(netcheck::<B>))
        .route("/v1/invites", post(invite::<B>))
        .route("/v1/relays", get(relays::<B>).post(change_relays::<B>))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(gate))
        .with_state(Api { backend, stop })
}

struct Api<B> {
    backend: Arc<B>,
    stop: CancellationToken,
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Self {
        Self { backend: self.backend.clone(), stop: self.stop.clone() }
    }
}

/// An answer, or a refusal with the HTTP status of its code.
type Answer<T> = Result<Reply<T>, Refusal>;

async fn version() -> Reply<Version> {
    Reply(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL.to_owned(),
        api: "v1".to_owned(),
    })
}

async fn id<B: Backend>(State(api): State<Api<B>>) -> Answer<mesh_control::Id> {
    Ok(Reply(api.backend.id().await?))
}

async fn status<B: Backend>(State(api): State<Api<B>>) -> Answer<mesh_control::Status> {
    Ok(Reply(api.backend.status().await?))
}

async fn peers<B: Backend>(State(api): State<Api<B>>) -> Answer<Peers> {
    Ok(Reply(Peers { peers: api.backend.peers().await? }))
}

async fn peer<B: Backend>(
    State(api): State<Api<B>>,
    name: Result<Path<String>, PathRejection>,
) -> Answer<PeerStatus> {
    let Path(name) =
        name.map_err(|_| ApiError::new(ErrorCode::BadRequest, "the peer's name is not UTF-8"))?;
    let found = api.backend.peers().await?.into_iter().find(|peer| peer.name == name || peer.node_id == name);
    let unknown = || {
        ApiError::new(ErrorCode::UnknownPeer, format!("no peer is called {name:?}"))
            .with_hint("GET /v1/peers lists them")
    };
    Ok(Reply(found.ok_or_else(unknown)?))
}

async fn listen<B: Backend>(State(api): State<Api<B>>) -> impl IntoResponse {
    events::answer(api.backend.events(), api.stop)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], OPENAPI)
}

async fn up<B: Backend>(State(api): State<Api<B>>, request: Request) -> Answer<mesh_control::UpAnswer> {
    let request: UpRequest = body(request).await?;
    Ok(Reply(api.backend.up(request).await?))
}

async fn down<B: Backend>(State(api): State<Api<B>>) -> Answer<mesh_control::DownAnswer> {
    Ok(Reply(api.backend.down().await?))
}

async fn ping<B: Backend>(State(api): State<Api<B>>, request: Request) -> Answer<mesh_control::PingAnswer> {
    let request: PingRequest = body(request).await?;
    require(
        (1..=PingRequest::MAX_TIMEOUT_MS).contains(&request.timeout_ms),
        format_args!("timeout_ms must be from 1 to {}", PingRequest::MAX_TIMEOUT_MS),
    )?;
    let sizes = PingRequest::MIN_SIZE..=PingRequest::MAX_SIZE;
    require(
        request.size.is_none_or(|size| sizes.contains(&size)),
        format_args!("size must be from {} to {}", PingRequest::MIN_SIZE, PingRequest::MAX_SIZE),
    )?;
    Ok(Reply(api.backend.ping(request).await?))
}

async fn netcheck<B: Backend>(State(api): State<Api<B>>) -> Answer<mesh_control::Netcheck> {
    Ok(Reply(api.backend.netcheck().await?))
}

async fn invite<B: Backend>(
    State(api): State<Api<B>>,
    request: Request,
) -> Answer<mesh_control::InviteAnswer> {
    let request: InviteRequest = body(request).await?;
    require(request.uses > 0, format_args!("uses must be at least 1"))?;
    require(request.ttl_s > 0, format_args!("ttl_s must be at least 1"))?;
    Ok(Reply(api.backend.invite(request).await?))
}

async fn relays<B: Backend>(State(api): State<Api<B>>) -> Answer<mesh_control::Relays> {
    Ok(Reply(api.backend.relays().await?))
}

async fn change_relays<B: Backend>(
    State(api): State<Api<B>>,
    request: Request,
) -> Answer<mesh_control::Relays> {
    let request: RelayRequest = body(request).await?;
    Ok(Reply(api.backend.change_relays(request).await?))
}

async fn no_such_route(uri: Uri) -> Refusal {
    let error = ApiError::new(ErrorCode::BadRequest, format!("there is no {}", uri.path()))
        .with_hint("GET /v1/openapi.json lists what there is");
    Refusal { status: StatusCode::NOT_FOUND, error }
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let error = ApiError::new(ErrorCode::BadRequest, format!("{} does not take {method}", uri.path()))
        .with_hint("GET /v1/openapi.json lists what there is");
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, error }
}

/// Turns away what no handler should see, and notes who changed something.
async fn gate(Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    if let Err(refusal) = check(&caller, request.method(), request.headers()) {
        return refusal.into_response();
    }
    let change =
        is_change(request.method()).then(|| (request.method().clone(), request.uri().path().to_owned()));
    let response = next.run(request).await;
    if let Some((method, route)) = change {
        let (uid, pid, status) = (caller.uid, caller.pid, response.status().as_u16());
        info!(%method, route, uid, pid, status, "control request");
    }
    response
}

fn check(caller: &Caller, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if caller.turned_away {
        let error = ApiError::new(ErrorCode::Busy, "too many connections to the daemon")
            .with_hint("close some of those that follow its events, or try again");
        return Err(error.into());
    }
    // Only browsers send these, and nothing that a web page makes a browser do has any business here.
    if [header::ORIGIN, header::REFERER].iter().any(|name| headers.contains_key(name)) {
        return Err(ApiError::new(ErrorCode::NotPermitted, "requests from web pages are refused").into());
    }
    if is_change(method) && !caller.may_write {
        let error = ApiError::new(
            ErrorCode::NotPermitted,
            format!("the user with id {} may read but not change anything", caller.uid),
        );
        return Err(error.with_hint("use sudo, or set \"operator\" in /etc/shadowmesh/meshd.toml").into());
    }
    Ok(())
}

fn is_change(method: &Method) -> bool {
    method != Method::GET && method != Method::HEAD
}

/// Reads a JSON body within the limits of size and time.
async fn body<T: Document>(request: Request) -> Result<T, Refusal> {
    let json = request.headers().get(header::CONTENT_TYPE).is_some_and(is_json);
    if !json {
        let error = ApiError::new(ErrorCode::BadRequest, "the body must be of type application/json")
            .with_hint("curl: -H 'content-type: application/json'");
        return Err(Refusal { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, error });
    }
    let too_large = || Refusal {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        error: ApiError::new(ErrorCode::BadRequest, format!("the body is larger than {BODY_LIMIT} bytes")),
    };
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > BODY_LIMIT) {
        return Err(too_large());
    }
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), BODY_LIMIT)).await {
        Ok(Ok(bytes)) => bytes,
        // The only other failure is a caller who hangs up, and then nobody reads this.
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let error = ApiError::new(ErrorCode::Timeout, "the body did not arrive in time");
            return Err(Refusal { status: StatusCode::REQUEST_TIMEOUT, error });
        }
    };
    T::from_request(&bytes).map_err(|reason| {
        let what = match reason {
            DocumentError::Json(_) | DocumentError::NotAnObject => "the body is not what this route takes",
            DocumentError::Schema { .. } => "the body is of another schema",
        };
        ApiError::new(ErrorCode::BadRequest, format!("{what}: {reason}")).into()
    })
}

fn is_json(value: &HeaderValue) -> bool {
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn require(holds: bool, what: std::fmt::Arguments<'_>) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(ApiError::new(ErrorCode::BadRequest, what.to_string()).into()) }
}

/// A document with status 200.
struct Reply<T>(T);

impl<T: Document> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// A refusal; `status` is that of the code unless HTTP has a closer one.
struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status =
            StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &self.error)
    }
}

fn json<T: Document>(status: StatusCode, document: &T) -> Response {
    match document.to_json() {
        Ok(json) => {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            (status, kind, Body::from(json)).into_response()
        }
        Err(reason) => {
            error!(%reason, schema = T::SCHEMA, "an answer has no JSON form");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Requests hold a ticket at most.
pub(super) const BODY_LIMIT: usize = 1024 * 1024;

/// A local caller sends its body at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
