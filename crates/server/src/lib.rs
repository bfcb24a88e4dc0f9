//! HTTP: the native API, its OpenAPI document and its authentication.
