//! One file has one session, whichever node is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outlive_protocol::http::{
    CellEdit, Close, EditNotebook, OpenSession, Opened, Problem, SaveHow, SaveSession, SavedState,
    SessionView,
};
use outlive_store::faulty::{Fault, Operation};
use tokio::task::JoinHandle;

use super::world::{One, World, id};
use crate::api::Api;
use crate::context::Presence;

/// A world whose nodes share a directory, which is at the same place on each.
fn sharing() -> (World, PathBuf) {
    let mut world = World::new();
    world.volumes = |place, _| [("data".to_owned(), place.join("shared"))].into();
    let shared = world.place.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    (world, shared.canonicalize().unwrap())
}

fn write(path: &Path, source: &str) {
    let notebook = serde_json::json!({
        "cells": [{
            "cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [], "source": [source],
        }],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
    });
    std::fs::write(path, notebook.to_string()).unwrap();
}

async fn open(one: &One, path: &Path) -> Result<Opened, Problem> {
    let path = Some(path.display().to_string());
    one.node.open(OpenSession { path, ..OpenSession::default() }).await
}

async fn save(one: &One, opened: &Opened, path: Option<&Path>, how: SaveHow) -> Result<Opened, Problem> {
    let path = path.map(|path| path.display().to_string());
    one.node.save(opened.session_id, SaveSession { path, how, overwrite: false }).await
}

async fn edit(one: &One, opened: &Opened, source: &str) {
    let edit = CellEdit::SetSource { cell: "a".to_owned(), source: source.to_owned(), expected: None };
    one.node.edit(opened.session_id, EditNotebook { edits: vec![edit] }).await.unwrap();
}

fn there(problem: Problem) -> Option<outlive_core::id::NodeId> {
    assert_eq!(problem.code, "elsewhere", "{problem:?}");
    problem.elsewhere.map(|there| there.node)
}

fn failing(view: &SessionView) -> Option<&str> {
    match &view.saved {
        Some(SavedState::Failing { why }) => Some(why),
        _ => None,
    }
}

// E10b
#[tokio::test(start_paused = true)]
async fn a_path_that_a_session_of_another_node_has_is_asked_for_there() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    let first = open(&nodes[0], &path).await.unwrap();
    assert_eq!(there(open(&nodes[1], &path).await.unwrap_err()), Some(id(1)));
    assert_eq!(open(&nodes[0], &path).await.unwrap().session_id, first.session_id, "joined there");
    // Nor can another session be saved there.
    let other = nodes[1].node.new_session(Default::default()).await.unwrap();
    let refused = save(&nodes[1], &other, Some(&path), SaveHow::Save).await.unwrap_err();
    assert_eq!(refused.code, "path-already-open");
    assert_eq!(refused.facts["session"], first.session_id.to_string());
    // What is closed is free.
    nodes[0].node.close(first.session_id, Close { discard: false }).await.unwrap();
    nodes[0].until_gone(first.session_id).await;
    let second = open(&nodes[1], &path).await.unwrap();
    assert_ne!(second.session_id, first.session_id);
    assert_eq!(there(open(&nodes[0], &path).await.unwrap_err()), Some(id(2)));
}

// E10b
#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_race_for_one_path_one_has_it() {
    let (world, shared) = sharing();
    let nodes = world.nodes(2).await;
    for round in 0..20 {
        let path = shared.join(format!("{round}.ipynb"));
        write(&path, "1");
        let (one, other) = tokio::join!(open(&nodes[0], &path), open(&nodes[1], &path));
        let (made, refused) = match (one, other) {
            (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
            both => panic!("{both:?}"),
        };
        let owner = world.owner(made.session_id).await.unwrap();
        assert_eq!(there(refused), Some(owner.node));
    }
    assert_eq!(nodes[0].node.sessions(false).await.unwrap().len(), 20, "one for each path");
}

// E10b, E10
#[tokio::test(start_paused = true)]
async fn the_claim_of_a_path_moves_with_the_session_when_its_node_dies() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(3).await;
    let opened = open(&nodes[0], &path).await.unwrap();
    edit(&nodes[0], &opened, "2").await;
    nodes[0].kill();
    let claim = world.until_owner(opened.session_id, |claim| claim.node != id(1)).await;
    let (heirs, others): (Vec<_>, Vec<_>) =
        nodes[1..].iter().partition(|one| one.context().who.node == claim.node);
    heirs[0].until(opened.session_id, |_| true).await;
    assert_eq!(open(heirs[0], &path).await.unwrap().session_id, opened.session_id);
    assert_eq!(there(open(others[0], &path).await.unwrap_err()), Some(claim.node));
    heirs[0].until(opened.session_id, |view| matches!(view.saved, Some(SavedState::Saved { .. }))).await;
    assert!(
        std::fs::read_to_string(&path).unwrap().contains("\"2\""),
        "an edit that was answered is in the file"
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_of_a_session_that_lies_dormant_wakes_it_where_it_is_opened() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    let first = open(&nodes[0], &path).await.unwrap();
    nodes[1].until_listed(first.session_id, |listed| listed.presence == Presence::Dormant).await;
    let woken = open(&nodes[1], &path).await.unwrap();
    assert_eq!((woken.session_id, woken.session.node.as_deref()), (first.session_id, Some("n2")));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_its_claimant_died_with_is_replaced() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    // It dies between the claim and the session.
    let gate = nodes[0].gate.clone();
    nodes[0].faults.set(move |operation| match operation {
        outlive_store::faulty::Operation::Append { .. } => {
            gate.shut();
            outlive_store::faulty::Fault::Delay(std::time::Duration::MAX)
        }
        _ => outlive_store::faulty::Fault::None,
    });
    let (node, opening) = (Arc::clone(&nodes[0].node), path.display().to_string());
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move { node.open(OpenSession { path: Some(opening), ..Default::default() }).await });
    let rows = world.until_rows("paths", 1).await;
    assert_eq!(rows, 1);
    assert_eq!(there(open(&nodes[1], &path).await.unwrap_err()), Some(id(1)), "it may still be made there");
    nodes[0].kill();
    nodes[1].until_members(1).await;
    open(&nodes[1], &path).await.unwrap();
}

/// Opens a path at a node, which stands still behind its first append until somebody opens its gate.
fn opens_and_stands_still(one: &One, path: &Path) -> JoinHandle<Result<Opened, Problem>> {
    let (gate, mut is_first) = (one.gate.clone(), true);
    one.faults.set(move |operation| {
        if matches!(operation, Operation::Append { .. }) && std::mem::take(&mut is_first) {
            gate.shut();
        }
        Fault::None
    });
    opens(one, path)
}

fn opens(one: &One, path: &Path) -> JoinHandle<Result<Opened, Problem>> {
    let (node, path) = (Arc::clone(&one.node), Some(path.display().to_string()));
    one.context().tasks.spawn(async move { node.open(OpenSession { path, ..Default::default() }).await })
}

// E10b
#[tokio::test(start_paused = true)]
async fn a_node_that_stood_still_while_it_made_a_session_leaves_the_path_to_who_has_it_since() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    let slow = opens_and_stands_still(&nodes[0], &path);
    nodes[1].until_members(1).await;
    let quick = open(&nodes[1], &path).await.unwrap();
    nodes[0].gate.open();
    let problem = slow.await.unwrap().unwrap_err();
    assert_eq!((problem.status, problem.code.as_str()), (503, "session-moving"), "it is asked for again");
    nodes[0].until_ready().await;
    assert_eq!(there(open(&nodes[0], &path).await.unwrap_err()), Some(id(2)));
    for one in &nodes {
        let listed = one.node.sessions(true).await.unwrap();
        assert_eq!(listed.iter().map(|view| view.id).collect::<Vec<_>>(), [quick.session_id]);
    }
}

// E10b
#[tokio::test(start_paused = true)]
async fn a_session_that_was_made_by_a_node_thought_dead_keeps_its_path_from_who_is_about_to_take_it() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    let slow = opens_and_stands_still(&nodes[0], &path);
    nodes[1].until_members(1).await;
    let (looked, mut has_looked) = tokio::sync::watch::channel(false);
    nodes[1].faults.set(move |operation| match operation {
        Operation::TableWrite if !looked.send_replace(true) => Fault::Delay(Duration::from_secs(1)),
        _ => Fault::None,
    });
    let late = opens(&nodes[1], &path);
    // It has found a claim and no session, and is to replace it in a moment.
    has_looked.wait_for(|has| *has).await.unwrap();
    nodes[0].gate.open();
    slow.await.unwrap().unwrap();
    assert_eq!(there(late.await.unwrap().unwrap_err()), Some(id(1)));
}

// E10b, E11
#[tokio::test(start_paused = true)]
async fn a_session_of_which_nobody_can_tell_whether_it_was_made_keeps_its_path() {
    let (world, shared) = sharing();
    let path = shared.join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    // Its row is written, and neither that can be read nor what is to be removed again.
    let (mut writes, mut rows, mut logs) = (0, 1, 1);
    nodes[0].faults.set(move |operation| match operation {
        Operation::TableWrite => {
            writes += 1;
            if writes == 2 { Fault::LostAck } else { Fault::None }
        }
        Operation::TableRead if writes == 2 && rows > 0 => {
            rows -= 1;
            Fault::Unavailable
        }
        Operation::Read { .. } if writes == 2 && logs > 0 => {
            logs -= 1;
            Fault::Unavailable
        }
        _ => Fault::None,
    });
    assert_eq!(open(&nodes[0], &path).await.unwrap_err().status, 503);
    let opened = open(&nodes[0], &path).await.unwrap();
    let listed = nodes[1].node.sessions(false).await.unwrap();
    assert_eq!(listed.iter().map(|view| view.id).collect::<Vec<_>>(), [opened.session_id]);
}

// E10
#[tokio::test(start_paused = true)]
async fn a_notebook_whose_file_the_new_node_does_not_reach_is_open_and_says_who_can_save_it() {
    let world = World::new();
    let path = world.place.path().canonicalize().unwrap().join("a.ipynb");
    write(&path, "1");
    let nodes = world.nodes(2).await;
    let opened = open(&nodes[0], &path).await.unwrap();
    edit(&nodes[0], &opened, "2").await;
    nodes[1].until_listed(opened.session_id, |listed| listed.owner.is_some()).await;
    nodes[0].kill();
    world.until_owner(opened.session_id, |claim| claim.node == id(2)).await;
    let view = nodes[1].until(opened.session_id, |view| failing(view).is_some()).await;
    assert!(failing(&view).unwrap().contains("volume"), "{view:?}");
    // A file of the same name on this machine is another one.
    write(&path, "somebody else's");
    let notebook = nodes[1].node.notebook(opened.session_id, true).await.unwrap();
    assert_eq!(notebook.cells[0].source, "2", "with every edit that was answered");
    let refused = save(&nodes[1], &opened, None, SaveHow::Save).await.unwrap_err();
    assert_eq!(refused.code, "volume-not-here");
    assert!(refused.hint.unwrap().contains("node n1"));
    let elsewhere = path.with_file_name("b.ipynb");
    save(&nodes[1], &opened, Some(&elsewhere), SaveHow::SaveAs).await.unwrap();
    assert!(std::fs::read_to_string(&elsewhere).unwrap().contains("\"2\""));
    assert!(std::fs::read_to_string(&path).unwrap().contains("somebody else's"), "and it is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_volume_may_be_at_another_place_on_each_node() {
    let mut world = World::new();
    world.volumes =
        |place, number| -> BTreeMap<_, _> { [("data".to_owned(), place.join(format!("v{number}")))].into() };
    let place = world.place.path().canonicalize().unwrap();
    for number in 1..=2 {
        std::fs::create_dir(place.join(format!("v{number}"))).unwrap();
        write(&place.join(format!("v{number}/a.ipynb")), "1");
    }
    let nodes = world.nodes(2).await;
    let opened = open(&nodes[0], &place.join("v1/a.ipynb")).await.unwrap();
    assert_eq!(there(open(&nodes[1], &place.join("v2/a.ipynb")).await.unwrap_err()), Some(id(1)));
    nodes[0].kill();
    world.until_owner(opened.session_id, |claim| claim.node == id(2)).await;
    let here = place.join("v2/a.ipynb").display().to_string();
    nodes[1].until(opened.session_id, |view| view.path.as_deref() == Some(&*here)).await;
    assert_eq!(open(&nodes[1], Path::new(&here)).await.unwrap().session_id, opened.session_id);
}
