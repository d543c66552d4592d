//! Connections, the way from a request to a route, and what every answer carries.

use crate::app::App;
use crate::cors;
use crate::reply::{Reply, ReplyBody, fault, whole};
use crate::routes;
use crate::stall::Stall;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How long a client may take to send its request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may pause while it reads an answer.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// Most connections at a time; more wait until one ends.
const CONNECTIONS: usize = 1024;
/// How long requests in flight may hold up the end of the process.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Accepts connections until `stop` turns true, then ends those that are open.
pub async fn serve(app: Arc<App>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(connections(open_files())));
    let accept = async || {
        let place = places.clone().acquire_owned().await;
        listener.accept().await.map(|(stream, _)| (stream, place))
    };
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // For want of file descriptors, most likely: connections that end free some.
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are small and wait for nothing.
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        let service = service_fn(move |request| {
            let app = app.clone();
            async move { Ok::<_, Infallible>(answer(&app, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(Stall::new(stream, READ_PATIENCE)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(CLOSE_PATIENCE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("connections that did not end in time are closed");
    }
}

/// Files that the process may have open.
fn open_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes one `rlimit`, for which the pointer is valid and exclusive.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 256,
    }
}

/// Most connections of a process that may have so many files open. A connection may have a file
/// open beside its socket, and the rest of the process needs some.
fn connections(open_files: u64) -> usize {
    let room = open_files.saturating_sub(64) / 2;
    usize::try_from(room).map_or(CONNECTIONS, |room| room.clamp(1, CONNECTIONS))
}

/// Answers one request.
async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Reply {
    let method = request.method().clone();
    // The query may hold a key, so only the path is logged.
    let path = request.uri().path().to_owned();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut reply = match preflight(app, &request) {
        Some(reply) => reply,
        None => route(app, request).await,
    };
    tracing::debug!("{method} {path} {}", reply.status().as_u16());
    let headers = reply.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin
        && origin
            .to_str()
            .is_ok_and(|o| cors::is_allowed(o, &app.config.cors_origins))
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    reply
}

async fn route(app: &Arc<App>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let format = app.config.models_format;
    let Some(route) = routes::find(path, format) else {
        let trimmed = path.trim_end_matches('/');
        return match routes::find(trimmed, format) {
            Some(_) => redirect(trimmed, request.uri().query()),
            None => *fault(StatusCode::NOT_FOUND, "Not Found"),
        };
    };
    let allowed = route.method.clone();
    let is_head = request.method() == Method::HEAD && allowed == Method::GET;
    if *request.method() != allowed && !is_head {
        let mut reply = *fault(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        let name = HeaderValue::from_str(allowed.as_str());
        // A method's name is always a valid header value.
        reply
            .headers_mut()
            .extend(name.ok().map(|name| (header::ALLOW, name)));
        return reply;
    }
    route.answer(app, request).await
}

/// 307 to the path without a slash at its end.
fn redirect(path: &str, query: Option<&str>) -> Reply {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut reply = Response::new(ReplyBody::Whole(None));
    *reply.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::from_str(&format!("{path}{query}")) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    reply
}

/// The answer to a browser's question whether it may call; `None` when this is no such question.
fn preflight<T>(app: &App, request: &Request<T>) -> Option<Reply> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let text = |name| {
        request
            .headers()
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    let origin = text(header::ORIGIN)?;
    let method = text(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let asked = text(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let faults = cors::preflight_faults(origin, method, asked, &app.config.cors_origins);
    const PLAIN: &str = "text/plain; charset=utf-8";
    let mut reply = if faults.is_empty() {
        whole(StatusCode::OK, PLAIN, "OK")
    } else {
        whole(
            StatusCode::BAD_REQUEST,
            PLAIN,
            format!("Disallowed CORS {}", faults.join(", ")),
        )
    };
    let headers = reply.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, cors::ALLOW_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, cors::ALLOW_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files() {
        assert_eq!(connections(u64::MAX), CONNECTIONS);
        assert_eq!(connections(1024), 480);
        assert_eq!(connections(0), 1);
        assert!(open_files() > 0);
    }
}
