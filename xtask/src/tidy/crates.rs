//! The direction of dependencies between the crates (ARCHITECTURE.md).

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use crate::shell;

/// Each crate with those of ours that it may name. Lower layers do not know each other.
const MAY_USE: &[(&str, &[&str])] = &[
    ("outlive-core", &[]),
    ("outlive-protocol", &["outlive-core"]),
    ("outlive-store", &["outlive-core", "outlive-protocol"]),
    ("outlive-store-nats", &["outlive-core", "outlive-protocol", "outlive-store"]),
    ("outlive-process", &["outlive-core"]),
    ("outlive-jupyter", &["outlive-core"]),
    ("outlive-document", &["outlive-core", "outlive-protocol"]),
    ("outlive-shim", &["outlive-core", "outlive-protocol", "outlive-process", "outlive-jupyter"]),
    (
        "outlive-node",
        &[
            "outlive-core",
            "outlive-protocol",
            "outlive-store",
            "outlive-process",
            "outlive-jupyter",
            "outlive-document",
        ],
    ),
    ("outlive-server", &["outlive-core", "outlive-protocol", "outlive-node"]),
    ("outlive-mcp", &["outlive-core", "outlive-protocol", "outlive-node"]),
    (
        "outlive-cli",
        &[
            "outlive-core",
            "outlive-protocol",
            "outlive-store",
            "outlive-store-nats",
            "outlive-process",
            "outlive-jupyter",
            "outlive-document",
            "outlive-shim",
            "outlive-node",
            "outlive-server",
            "outlive-mcp",
        ],
    ),
    // The tests see what a user sees: the binary. Of the store they take the servers that they start and kill.
    ("outlive-e2e", &["outlive-store-nats"]),
    (
        "outlive-fuzz",
        &["outlive-core", "outlive-protocol", "outlive-store", "outlive-jupyter", "outlive-document"],
    ),
    // The real node over seams that are made up.
    (
        "outlive-sim",
        &["outlive-core", "outlive-document", "outlive-node", "outlive-protocol", "outlive-store"],
    ),
    // What an append costs is asked of the engine itself; everything else of the binary.
    ("outlive-bench", &["outlive-core", "outlive-e2e", "outlive-store", "outlive-store-nats"]),
    ("xtask", &[]),
];

pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = shell::capture(&mut shell::cargo(
        root,
        &["metadata", "--no-deps", "--offline", "--format-version", "1"],
    ))?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("cargo metadata printed something else than JSON")?;
    Ok(directions(&metadata))
}

fn directions(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let mut find = |text: String| findings.push(Finding::new(format!("{name}/Cargo.toml"), 0, text));
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            find(
                "this crate has no place in xtask/src/tidy/crates.rs yet: say what it may depend on"
                    .to_owned(),
            );
            continue;
        };
        for dependency in package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            if ours.contains(&on) && !for_tests && !allowed.contains(&on) {
                find(format!(
                    "may not depend on {on}: dependencies go {name} ← its users, see ARCHITECTURE.md"
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, on: &str, kind: Option<&str>) -> Value {
        json!({"name": name, "dependencies": [{"name": on, "kind": kind}]})
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        let metadata = json!({"packages": [package("outlive-store", "outlive-process", None), package("outlive-process", "libc", None)]});
        let found = directions(&metadata);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains("may not depend on outlive-process"), "{found:?}");
    }

    #[test]
    fn dependencies_of_tests_and_along_the_direction_pass() {
        let metadata = json!({"packages": [
            package("outlive-core", "serde", None),
            package("outlive-protocol", "outlive-core", None),
            package("outlive-store", "outlive-process", Some("dev")),
            package("outlive-process", "outlive-core", None),
        ]});
        assert_eq!(directions(&metadata), []);
    }

    #[test]
    fn an_unknown_crate_is_found() {
        let found = directions(&json!({"packages": [package("outlive-new", "serde", None)]}));
        assert!(found[0].to_string().contains("no place"), "{found:?}");
    }
}
