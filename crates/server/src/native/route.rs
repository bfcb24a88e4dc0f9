//! One entry of the table: its handler and its part of the document come from the same types, so they cannot disagree.

use std::future::Future;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::IntoResponse as _;
use axum::routing::{MethodFilter, MethodRouter, on};
use outlive_protocol::http::Problem;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::App;
use super::answer::Answer;
use super::request::{Call, Fields, RequestBody};
use crate::problem;

/// A method of a path.
pub(crate) struct Route {
    pub path: &'static str,
    /// Lower case, as in OpenAPI.
    pub method: &'static str,
    pub handler: MethodRouter<App>,
    /// Its operation object.
    pub document: Box<dyn Fn(&mut SchemaGenerator) -> Value>,
}

macro_rules! methods {
    ($($name:ident $lower:literal $method:ident)*) => {
        $(
            pub(crate) fn $name<P, Q, B, A, F, R>(
                path: &'static str,
                id: &'static str,
                summary: &'static str,
                handler: F,
            ) -> Route
            where
                P: Fields,
                Q: Fields,
                B: RequestBody,
                A: Answer,
                F: Fn(App, Call<P, Q, B>) -> R + Clone + Send + Sync + 'static,
                R: Future<Output = Result<A, Problem>> + Send + 'static,
            {
                let filter = MethodFilter::try_from(Method::$method).expect("a method that axum routes");
                let handler = on(filter, move |State(app): State<App>, request: Request| async move {
                    let answer = async {
                        let call = Call::read(path, app.body_deadline, request).await?;
                        Ok::<_, Problem>(handler(app, call).await?.into_response())
                    };
                    answer.await.unwrap_or_else(|refused| problem::response(path, &refused)).into_response()
                });
                let document = Box::new(move |generator: &mut SchemaGenerator| {
                    operation::<P, Q, B, A>(generator, id, summary)
                });
                Route { path, method: $lower, handler, document }
            }
        )*
    };
}

methods! {
    get "get" GET
    post "post" POST
    put "put" PUT
    delete "delete" DELETE
}

fn operation<P: Fields, Q: Fields, B: RequestBody, A: Answer>(
    generator: &mut SchemaGenerator,
    id: &str,
    summary: &str,
) -> Value {
    let mut parameters = fields_of::<P>(generator, "path");
    parameters.extend(fields_of::<Q>(generator, "query"));
    let refusal = json!({
        "description": "Refused, for the reason that the body says",
        "content": { problem::MEDIA_TYPE: { "schema": generator.subschema_for::<Problem>() } },
    });
    let mut answer = json!({ "description": A::DESCRIPTION });
    if let Some(content) = A::content(generator) {
        answer["content"] = content;
    }
    let mut responses = Map::new();
    if let Some((status, when)) = A::OR {
        let mut other = answer.clone();
        other["description"] = when.into();
        responses.insert(status.as_str().to_owned(), other);
    }
    responses.insert(A::STATUS.as_str().to_owned(), answer);
    responses.insert("default".to_owned(), refusal);
    responses.sort_keys();
    let mut operation = json!({ "operationId": id, "summary": summary, "responses": responses });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = B::document(generator) {
        operation["requestBody"] = body;
    }
    operation
}

/// The fields of a struct as parameters.
fn fields_of<T: Fields>(generator: &mut SchemaGenerator, place: &str) -> Vec<Value> {
    let schema = T::json_schema(generator);
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
    fields
        .iter()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let mut parameter =
                json!({ "name": name, "in": place, "required": is_required(name), "schema": schema });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameter
        })
        .collect()
}
