//! The list of tools: fresh, and fit for a model.

use std::path::Path;

use serde_json::Value;

use crate::agent::every;
use crate::memory::Memory;

/// `UPDATE=1 cargo nextest run -p outlive-mcp` writes it anew.
#[test]
fn the_checked_in_manifest_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mcp-tools.json");
    let fresh = format!("{:#}\n", outlive_mcp::manifest());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == fresh, "docs/mcp-tools.json is stale: run `UPDATE=1 cargo nextest run -p outlive-mcp`");
}

#[test]
fn every_argument_is_explained_and_no_schema_refers_to_another() {
    for tool in outlive_mcp::manifest()["tools"].as_array().unwrap() {
        let name = &tool["name"];
        assert!(!tool.to_string().contains("\"$ref\""), "{name}: not every client follows references");
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object", "{name} {schema}");
        }
        let arguments = tool["inputSchema"]["properties"].as_object().unwrap();
        for (argument, schema) in arguments {
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{name}: what is {argument}?");
        }
        assert_eq!(tool["inputSchema"]["additionalProperties"], Value::Bool(false), "{name}");
    }
}

#[tokio::test]
async fn clients_are_shown_the_manifest_and_how_to_begin() {
    for agent in every(&Memory::new()).await {
        let info = agent.client.peer_info().unwrap();
        assert!(info.instructions.as_ref().unwrap().contains("`open` or `new`"));
        let tools = agent.client.list_all_tools().await.unwrap();
        assert_eq!(serde_json::to_value(tools).unwrap(), outlive_mcp::manifest()["tools"]);
        agent.leave().await;
    }
}
