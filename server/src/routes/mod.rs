//! The routes: one file each, listed in one match on the path.

mod asked;
mod audio;
mod create_random_sample;
mod describe;
mod docs;
mod health;
mod init;
mod models;
mod query_result;
mod release_task;
mod stats;

use crate::app::App;
use crate::auth;
use crate::config::ModelsFormat;
use crate::reply::{Refused, Reply, denied, fault};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Route {
    ReleaseTask,
    QueryResult,
    CreateRandomSample,
    FormatInput,
    CreateSample,
    Init,
    Audio,
    Health,
    Stats,
    ModelList,
    OpenRouterModels,
    Docs,
    OpenApi,
}

impl Route {
    /// The route of a path. Every route is there under `/api` too.
    pub fn of(path: &str, format: ModelsFormat) -> Option<Self> {
        if path == "/api/v1/models" {
            return Some(Route::OpenRouterModels);
        }
        let path = match path.strip_prefix("/api") {
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        };
        Some(match path {
            "/release_task" => Route::ReleaseTask,
            "/query_result" => Route::QueryResult,
            "/create_random_sample" => Route::CreateRandomSample,
            "/format_input" => Route::FormatInput,
            "/v1/create_sample" => Route::CreateSample,
            "/v1/init" => Route::Init,
            "/v1/audio" => Route::Audio,
            "/health" => Route::Health,
            "/v1/stats" => Route::Stats,
            "/v1/models" if format == ModelsFormat::OpenRouter => Route::OpenRouterModels,
            "/v1/models" | "/v1/model_inventory" => Route::ModelList,
            "/docs" => Route::Docs,
            "/openapi.json" => Route::OpenApi,
            _ => return None,
        })
    }

    /// The method it answers to; GET routes answer HEAD too.
    pub fn method(self) -> Method {
        match self {
            Route::ReleaseTask
            | Route::QueryResult
            | Route::CreateRandomSample
            | Route::FormatInput
            | Route::CreateSample
            | Route::Init => Method::POST,
            _ => Method::GET,
        }
    }

    /// Answers.
    pub async fn answer(self, app: &Arc<App>, request: Request<Incoming>) -> Reply {
        self.try_answer(app, request)
            .await
            .unwrap_or_else(|refused| *refused)
    }

    async fn try_answer(
        self,
        app: &Arc<App>,
        request: Request<Incoming>,
    ) -> Result<Reply, Refused> {
        match self {
            Route::Health => Ok(health::answer(app)),
            Route::Docs => Ok(docs::page()),
            Route::OpenApi => Ok(docs::schema()),
            Route::ReleaseTask => release_task::answer(app, request).await,
            Route::QueryResult => query_result::answer(app, request).await,
            Route::CreateRandomSample => create_random_sample::answer(app, request).await,
            Route::FormatInput => describe::format_input(app, request).await,
            Route::CreateSample => describe::create_sample(app, request).await,
            Route::Init => init::answer(app, request).await,
            Route::Audio => audio::answer(app, &request).await,
            Route::Stats => {
                check_header(app, &request, None)?;
                Ok(stats::answer(app))
            }
            Route::ModelList => {
                check_header(app, &request, None)?;
                Ok(models::documented(app).await)
            }
            Route::OpenRouterModels => {
                check_header(app, &request, None)?;
                Ok(models::openrouter(app))
            }
        }
    }
}

/// What is said when answering broke off, which is a fault of this program.
fn unanswered() -> Refused {
    fault(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the request could not be answered",
    )
}

/// The `Authorization` header.
fn authorization<T>(request: &Request<T>) -> Option<String> {
    // A header that is no text is a wrong one, not a missing one.
    let header = request.headers().get(AUTHORIZATION);
    header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn check_header<T>(app: &App, request: &Request<T>, token: Option<&str>) -> Result<(), Refused> {
    check_header_text(app, authorization(request).as_deref(), token)
}

/// As [`check_header`], of a request whose body has been read.
fn check_header_text(app: &App, header: Option<&str>, token: Option<&str>) -> Result<(), Refused> {
    auth::check_header(app.config.api_key.as_ref(), header, token).map_err(denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact_and_have_a_prefix() {
        let of = |path| Route::of(path, ModelsFormat::Envelope);
        assert_eq!(of("/health"), Some(Route::Health));
        assert_eq!(of("/api/health"), Some(Route::Health));
        assert_eq!(of("/v1/models"), Some(Route::ModelList));
        assert_eq!(of("/api/v1/model_inventory"), Some(Route::ModelList));
        assert_eq!(of("/api/v1/models"), Some(Route::OpenRouterModels));
        for none in [
            "/",
            "/health/",
            "/apihealth",
            "/api",
            "/api/",
            "/api/api/health",
            "/Health",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        let of = |path| Route::of(path, ModelsFormat::OpenRouter);
        assert_eq!(of("/v1/models"), Some(Route::OpenRouterModels));
        assert_eq!(of("/v1/model_inventory"), Some(Route::ModelList));
    }
}
