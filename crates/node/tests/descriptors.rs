//! A daemon that runs out of files refuses new sessions first, and says so. Alone in its process, whose limit it lowers.

use std::sync::Arc;

use outlive_core::id::NodeId;
use outlive_node::api::Api;
use outlive_node::budget::Budgets;
use outlive_node::clock::SystemClock;
use outlive_node::{Node, NodeConfig};
use outlive_process::descriptors;
use outlive_protocol::http::{CellEdit, CellKindName, DoctorLevel, EditNotebook, NewSession, Where};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uuid::Uuid;

// C9
#[tokio::test]
async fn new_sessions_are_refused_before_the_last_files_are_gone_and_those_that_are_open_go_on() {
    let place = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        node: NodeId::from_uuid(Uuid::from_u128(1)),
        state: place.path().to_owned(),
        claims: place.path().join("claims"),
        earlier_claims: None,
        program: place.path().join("no-shim"),
        engine: Arc::new(outlive_store::Embedded::open(&place.path().join("store")).unwrap()),
        clock: Arc::new(SystemClock::default()),
        cache: place.path().join("cache"),
        budgets: Budgets::default(),
        causes: place.path().join("causes.toml"),
        cluster: None,
    };
    let node = Node::start(config).await.unwrap();
    let open = node.new_session(NewSession::default()).await.unwrap().session_id;
    let before = getrlimit(Resource::Nofile);
    let tight = Rlimit { current: Some(descriptors::used().unwrap() + 20), maximum: before.maximum };
    setrlimit(Resource::Nofile, tight).unwrap();

    let problem = node.new_session(NewSession::default()).await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.status), ("too-many-files", 503));
    assert!(problem.hint.is_some() && problem.detail.contains("kept free"), "{problem:?}");
    // What is open is edited and read all the same.
    let edit =
        CellEdit::Insert { at: Where::End, kind: CellKindName::Code, source: "x = 1".to_owned(), id: None };
    node.edit(open, EditNotebook { edits: vec![edit] }).await.unwrap();
    assert_eq!(node.notebook(open, false).await.unwrap().cells.last().unwrap().source, "x = 1");
    let doctor = node.doctor().await;
    let check = doctor.checks.iter().find(|check| check.name == "descriptors").unwrap();
    assert_eq!(check.level, DoctorLevel::Error, "{check:?}");
    assert!(check.found.contains("refused"), "{check:?}");
    let metrics = node.metrics().await;
    let limit = format!("outlive_fds_limit {}", tight.current.unwrap());
    assert!(metrics.lines().any(|line| line == limit), "{metrics}");

    setrlimit(Resource::Nofile, before).unwrap();
    node.new_session(NewSession::default()).await.expect("there is room again");
    let doctor = node.doctor().await;
    assert!(doctor.checks.iter().any(|check| check.name == "descriptors" && check.level == DoctorLevel::Ok));
    node.stop().await;
}
