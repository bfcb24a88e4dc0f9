//! Which notebooks somebody has vouched for: a table of keys. A key stands for what a notebook would start by itself:
//! its kernel, its environment and its code. Outputs, texts and the path make no difference.

use outlive_core::id::Revision;
use outlive_core::limits::TRUST_KEYS_MAX;
use outlive_document::{CellKind, Notebook};
use outlive_store::{Engine, TableError};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Key → nothing. A row's revision says when it was remembered, compared with others.
const TRUST: &str = "trust";

/// What identifies a trusted notebook: a SHA-256 in hex.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustKey(String);

/// The key of a notebook as it is.
#[must_use]
pub fn key(notebook: &Notebook) -> TrustKey {
    let code = notebook.cells().filter(|cell| cell.kind() == CellKind::Code);
    let sources = code.map(|cell| Value::String(cell.source())).collect();
    let kernel = notebook.kernel_name().map_or(Value::Null, Value::String);
    let environment = notebook.metadata("outlive").unwrap_or(Value::Null);
    let text = canonical(Value::Array(vec![kernel, environment, Value::Array(sources)])).to_string();
    TrustKey(crate::session::hex(&Sha256::digest(text)))
}

/// The same value with the members of its objects in order.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.into_iter().map(|(name, value)| (name, canonical(value))).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(canonical).collect()),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

/// Whether somebody has vouched for a notebook with this key.
///
/// # Errors
/// As the store says.
pub async fn is_trusted(engine: &dyn Engine, key: &TrustKey) -> Result<bool, TableError> {
    Ok(engine.get(TRUST, &key.0).await?.is_some())
}

/// Notes that somebody has vouched for it. Beyond [`TRUST_KEYS_MAX`] the one that was noted first is forgotten.
///
/// # Errors
/// As the store says; it may be noted all the same.
pub async fn remember(engine: &dyn Engine, key: &TrustKey) -> Result<(), TableError> {
    let before = engine.get(TRUST, &key.0).await?.map_or(Revision(0), |row| row.revision);
    match engine.put_if(TRUST, &key.0, before, &[]).await {
        // Another session noted the same at the same moment.
        Ok(_) | Err(TableError::Conflict { .. }) => {}
        Err(error) => return Err(error),
    }
    // A key that was there already makes the table no longer.
    if before == Revision(0) { keep(engine, TRUST_KEYS_MAX).await } else { Ok(()) }
}

/// Takes it back.
///
/// # Errors
/// As the store says.
pub async fn forget(engine: &dyn Engine, key: &TrustKey) -> Result<(), TableError> {
    match engine.get(TRUST, &key.0).await? {
        Some(row) => engine.delete_if(TRUST, &key.0, row.revision).await,
        None => Ok(()),
    }
}

/// Forgets the oldest keys until so many are left.
async fn keep(engine: &dyn Engine, keys: usize) -> Result<(), TableError> {
    let mut rows = engine.scan(TRUST, "").await?;
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.revision));
    for row in rows.into_iter().skip(keys) {
        match engine.delete_if(TRUST, &row.key, row.revision).await {
            Ok(()) | Err(TableError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notebook(source: &str, text: &str, metadata: &str) -> Notebook {
        let json = format!(
            r#"{{"cells":[{{"cell_type":"code","execution_count":null,"id":"a","metadata":{{}},"outputs":[],"source":["{source}"]}},
{{"cell_type":"markdown","id":"b","metadata":{{}},"source":["{text}"]}}],
"metadata":{{{metadata}}},"nbformat":4,"nbformat_minor":5}}"#
        );
        Notebook::parse(json.as_bytes()).unwrap()
    }

    const METADATA: &str =
        r#""kernelspec":{"name":"python3","display_name":"P"},"outlive":{"packages":["a"],"python":"3.11"}"#;

    #[test]
    fn a_key_changes_with_what_a_notebook_would_start_and_with_nothing_else() {
        let first = key(&notebook("1", "text", METADATA));
        let order = r#""outlive":{"python":"3.11","packages":["a"]},"kernelspec":{"display_name":"Q","name":"python3"}"#;
        assert_eq!(first, key(&notebook("1", "other", order)));
        assert_ne!(first, key(&notebook("2", "text", METADATA)));
        assert_ne!(first, key(&notebook("1", "text", &METADATA.replace("\"a\"", "\"b\""))));
        assert_ne!(first, key(&notebook("1", "text", &METADATA.replace("python3", "ir"))));
    }

    #[tokio::test]
    async fn what_was_vouched_for_is_known_until_it_is_taken_back() {
        let engine = outlive_store::Memory::default();
        let key = key(&notebook("1", "", METADATA));
        assert!(!is_trusted(&engine, &key).await.unwrap());
        remember(&engine, &key).await.unwrap();
        remember(&engine, &key).await.unwrap();
        assert!(is_trusted(&engine, &key).await.unwrap());
        forget(&engine, &key).await.unwrap();
        forget(&engine, &key).await.unwrap();
        assert!(!is_trusted(&engine, &key).await.unwrap());
    }

    #[tokio::test]
    async fn the_table_of_trust_is_bounded_and_the_oldest_go() {
        let engine = outlive_store::Memory::default();
        let keys: Vec<_> = (0..5).map(|n| key(&notebook(&n.to_string(), "", METADATA))).collect();
        for key in &keys {
            remember(&engine, key).await.unwrap();
        }
        // Vouched for again: it is not the oldest any more.
        remember(&engine, &keys[0]).await.unwrap();
        keep(&engine, 3).await.unwrap();
        let mut known = Vec::new();
        for key in &keys {
            known.push(is_trusted(&engine, key).await.unwrap());
        }
        assert_eq!(known, [true, false, false, true, true]);
    }
}
