//! Every serialized type: shim frames, log records, the HTTP API.
