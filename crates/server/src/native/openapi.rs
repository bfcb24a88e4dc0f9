//! The OpenAPI 3.1 document, made from the route table. Its schemas are JSON Schema 2020-12, as 3.1 asks.

use outlive_protocol::http::API_VERSION;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::table;

/// The whole document; `docs/openapi.json` is a copy of it.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in table::routes() {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method] = (route.document)(&mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outlive",
            "summary": "Notebooks, runners and commands that outlive whatever dies",
            "version": API_VERSION.to_string(),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": "/", "description": "The Unix socket, or the TCP address" }],
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for on TCP only; `?token=` works too. The Unix socket goes by the peer's user.",
                },
            },
        },
    })
}
