//! Clients that nobody has written for us.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use outlive_node::api::Api as _;
use tokio::process::Command;

use crate::world::{TOKEN, World, document, in_time};

/// The Python environment of the tests: `OUTLIVE_TEST_VENV`, or where `cargo xtask python` puts it.
fn python() -> PathBuf {
    let venv = std::env::var_os("OUTLIVE_TEST_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: `cargo xtask python` makes it", python.display());
    python
}

#[tokio::test]
async fn stock_providers_of_pycrdt_edit_together() {
    let world = World::start().await;
    let id = world.notebook().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/provider.py");
    let provider = Command::new(python())
        .arg(script)
        .arg(&world.socket)
        .args([world.address.to_string(), TOKEN.to_owned(), document(id)])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = in_time(provider).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.trim(), "# x = 'é😀'");
    let notebook = world.node.notebook(id, false).await.unwrap();
    assert_eq!(notebook.cells.last().unwrap().source, told.trim(), "and the daemon has it");
    world.stop().await;
}
