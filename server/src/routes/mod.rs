//! The routes: one file each, listed in one match on the path.

mod asked;
mod audio;
mod cancel;
mod chat;
mod create_random_sample;
mod describe;
mod docs;
mod events;
mod health;
mod init;
mod models;
mod query_result;
mod reinitialize;
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
    ChatCompletions,
    Init,
    Reinitialize,
    Unload,
    CancelTask,
    CancelAllTasks,
    Cleanup,
    Events,
    Audio,
    Health,
    Stats,
    ModelList,
    OpenRouterModels,
    Docs,
    OpenApi,
}

/// How a route checks the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Not at all.
    Open,
    /// By the `Authorization` header.
    Header,
    /// By `ai_token` in the body, else by the header.
    Body,
}

/// One row of the table of routes.
#[derive(Debug)]
pub struct Row {
    /// What it is.
    pub route: Route,
    /// `GET` or `POST`; routes that answer GET answer HEAD too.
    pub method: Method,
    /// Path; a part in braces stands for any text without a slash.
    pub path: &'static str,
    /// How it checks the key.
    pub guard: Guard,
    /// One line for people.
    pub help: &'static str,
}

macro_rules! routes {
    ($($method:ident $path:literal $guard:ident $route:ident $help:literal;)*) => {
        /// Every route, in the order of the documentation. All of them are there under `/api` too.
        pub static ROUTES: &[Row] = &[$(Row {
            route: Route::$route,
            method: Method::$method,
            path: $path,
            guard: Guard::$guard,
            help: $help,
        }),*];
    };
}

routes! {
    POST "/release_task" Body ReleaseTask "Queue a song";
    POST "/query_result" Body QueryResult "State and results of jobs";
    GET "/v1/audio" Header Audio "A result file, whole or in part";
    GET "/health" Open Health "Whether the server is up";
    GET "/v1/stats" Header Stats "Jobs and queue";
    GET "/v1/models" Header ModelList "Models";
    GET "/v1/model_inventory" Header ModelList "Models";
    POST "/v1/init" Header Init "Another model in a slot, a language model, or the same ones anew";
    POST "/v1/reinitialize" Header Reinitialize "Load what is not loaded, and what failed to load";
    POST "/v1/unload" Header Unload "Free the memory of models; the next job loads them again";
    POST "/format_input" Body FormatInput "Caption and lyrics in the language model's own form, and metadata for them";
    POST "/create_random_sample" Body CreateRandomSample "An example to fill a form with: sample_type simple_mode or custom_mode";
    POST "/v1/create_sample" Body CreateSample "A song in words that the language model invents from a wish";
    POST "/v1/chat/completions" Header ChatCompletions "A song as an answer to a chat message, whole or as a stream of events";
    POST "/cancel_task" Body CancelTask "End a job that waits or runs";
    POST "/cancel_all_tasks" Body CancelAllTasks "End every job that waits or runs";
    POST "/cleanup/{task_id}" Header Cleanup "End a job and forget it; its files stay";
    GET "/v1/jobs/{task_id}/events" Header Events "State and progress of a job as a stream of events";
    GET "/docs" Open Docs "This page";
    GET "/openapi.json" Open OpenApi "This page for programs";
}

/// A route that was found by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub route: Route,
    /// The method it answers to.
    pub method: Method,
    /// What stands in the place of braces, empty without them.
    pub parameter: String,
}

/// The route of a path.
pub fn find(path: &str, format: ModelsFormat) -> Option<Found> {
    let openrouter = || Found {
        route: Route::OpenRouterModels,
        method: Method::GET,
        parameter: String::new(),
    };
    if path == "/api/v1/models" {
        return Some(openrouter());
    }
    let path = match path.strip_prefix("/api") {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    if path == "/v1/models" && format == ModelsFormat::OpenRouter {
        return Some(openrouter());
    }
    ROUTES.iter().find_map(|row| {
        Some(Found {
            route: row.route,
            method: row.method.clone(),
            parameter: matched(row.path, path)?,
        })
    })
}

/// What stands in `path` where the pattern has braces; `None` when the path is another one.
fn matched(pattern: &str, path: &str) -> Option<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then(String::new);
    };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    let parameter = path.strip_prefix(before)?.strip_suffix(after)?;
    let is_one_part = !parameter.is_empty() && !parameter.contains('/');
    is_one_part.then(|| {
        percent_encoding::percent_decode_str(parameter)
            .decode_utf8_lossy()
            .into_owned()
    })
}

impl Found {
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
        let parameter = self.parameter.as_str();
        match self.route {
            Route::Health => Ok(health::answer(app)),
            Route::Docs => Ok(docs::page()),
            Route::OpenApi => Ok(docs::schema()),
            Route::ReleaseTask => release_task::answer(app, request).await,
            Route::QueryResult => query_result::answer(app, request).await,
            Route::CreateRandomSample => create_random_sample::answer(app, request).await,
            Route::FormatInput => describe::format_input(app, request).await,
            Route::CreateSample => describe::create_sample(app, request).await,
            Route::Init => init::answer(app, request).await,
            Route::Reinitialize => reinitialize::reinitialize(app, &request).await,
            Route::Unload => reinitialize::unload(app, request).await,
            Route::ChatCompletions => chat::answer(app, request).await,
            Route::CancelTask => cancel::one(app, request).await,
            Route::CancelAllTasks => cancel::all(app, request).await,
            Route::Cleanup => cancel::forget(app, &request, parameter).await,
            Route::Events => events::answer(app, &request, parameter).await,
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

    fn of(path: &str) -> Option<Route> {
        find(path, ModelsFormat::Envelope).map(|found| found.route)
    }

    #[test]
    fn paths_are_exact_and_have_a_prefix() {
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
            "/cleanup/",
            "/cleanup/a/b",
            "/v1/jobs//events",
            "/v1/jobs/events",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        let of = |path| find(path, ModelsFormat::OpenRouter).map(|found| found.route);
        assert_eq!(of("/v1/models"), Some(Route::OpenRouterModels));
        assert_eq!(of("/v1/model_inventory"), Some(Route::ModelList));
    }

    #[test]
    fn parts_in_braces_are_decoded() {
        let found = find("/api/v1/jobs/a%20b/events", ModelsFormat::Envelope);
        let found = found.map(|f| (f.route, f.parameter));
        assert_eq!(found, Some((Route::Events, "a b".into())));
    }

    #[test]
    fn no_path_is_listed_twice() {
        for (index, row) in ROUTES.iter().enumerate() {
            assert!(ROUTES[..index].iter().all(|other| other.path != row.path));
        }
    }
}
