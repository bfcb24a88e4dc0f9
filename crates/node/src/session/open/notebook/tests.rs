//! Notebooks that are made and opened, by one and by many at once.

use std::fs;
use std::sync::Arc;

use futures_util::future::join_all;
use outlive_protocol::http::{CellKindName, RuntimeState, SaveHow, SavedState};
use tokio_util::task::TaskTracker;

use super::*;
use crate::session::task::{Daemon, Doom, PATIENCE, World};

const NOTEBOOK: &str = r#"{
 "cells": [
  {"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [], "source": ["1"]}
 ],
 "metadata": {"kernelspec": {"display_name": "R", "name": "ir"}},
 "nbformat": 4,
 "nbformat_minor": 5
}
"#;

async fn asked(daemon: &Daemon, request: OpenSession) -> Result<http::Opened, Problem> {
    open(&daemon.context, request).await
}

fn by(path: &Path) -> OpenSession {
    OpenSession { path: Some(path.display().to_string()), ..OpenSession::default() }
}

/// Nothing is left of what could not be opened.
fn assert_nothing_left(world: &World, daemon: &Daemon) {
    assert_eq!((daemon.context.handles().len(), world.claims()), (0, 0));
}

// C8
#[tokio::test]
async fn what_cannot_be_opened_is_refused_by_name_and_left_as_it_is() {
    let world = World::new();
    let daemon = world.daemon();
    let code = async |request| asked(&daemon, request).await.unwrap_err().code;
    assert_eq!(code(OpenSession::default()).await, "path-xor-id");
    let both = OpenSession { id: Some(fresh_id()), ..by(&world.path("a.ipynb")) };
    assert_eq!(code(both).await, "path-xor-id");
    assert_eq!(code(OpenSession { id: Some(fresh_id()), ..OpenSession::default() }).await, "no-such-session");
    assert_eq!(code(by(Path::new(&fresh_id().to_string()))).await, "use-the-id");
    assert_eq!(code(by(Path::new("here/a.ipynb"))).await, "relative-path");
    assert_eq!(code(by(&world.path("none/a.ipynb"))).await, "no-such-directory");
    assert_eq!(code(by(&world.path("none.ipynb"))).await, "no-such-file");
    fs::create_dir(world.path("folder.ipynb")).unwrap();
    assert_eq!(code(by(&world.path("folder"))).await, "bad-path");
    let old = r#"{"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": []}"#;
    for (text, expected) in [("{", "not-a-notebook"), ("", "not-a-notebook"), (old, "too-old-notebook")] {
        let path = world.path("bad.ipynb");
        fs::write(&path, text).unwrap();
        let problem = asked(&daemon, by(&path)).await.unwrap_err();
        assert_eq!(problem.code, expected);
        assert!(problem.detail.contains("bad.ipynb"), "{problem}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_nothing_left(&world, &daemon);
    }
    // What was wrong is mended, and opened without its ending.
    fs::write(world.path("bad.ipynb"), NOTEBOOK).unwrap();
    let opened = asked(&daemon, by(&world.path("bad"))).await.unwrap();
    assert_eq!(opened.path.as_deref(), world.path("bad.ipynb").to_str());
}

// C1
#[tokio::test]
async fn two_who_make_one_untitled_notebook_at_once_have_one_session() {
    let world = World::new();
    let daemon = world.daemon();
    let id = fresh_id();
    let make = || new(&daemon.context, NewSession { id: Some(id), ..NewSession::default() });
    let both = async { tokio::join!(make(), make()) };
    let (one, other) = tokio::time::timeout(PATIENCE, both).await.expect("none of them waits for ever");
    assert_eq!((one.unwrap().session_id, other.unwrap().session_id), (id, id));
    assert_eq!(daemon.context.handles().len(), 1);
}

// C1
#[tokio::test]
async fn a_row_that_is_left_of_what_was_never_made_is_in_nobodys_way() {
    let world = World::new();
    let daemon = world.daemon();
    let other = new(&daemon.context, NewSession::default()).await.unwrap();
    let id = fresh_id();
    let view = SessionView { id, ..other.session };
    daemon.context.index(&view, crate::context::Presence::Open, Default::default()).await.unwrap();
    let making = new(&daemon.context, NewSession { id: Some(id), ..NewSession::default() });
    let made = tokio::time::timeout(PATIENCE, making).await.expect("it does not wait for ever");
    assert_eq!(made.unwrap().session_id, id);
}

// C2, C8
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_open_one_path_at_once_join_one_session() {
    let world = World::new();
    std::os::unix::fs::symlink(world.path("."), world.path("link")).unwrap();
    let daemon = Arc::new(world.daemon());
    for round in 0..20 {
        let name = format!("{round}.ipynb");
        let is_whole = round % 2 == 0;
        fs::write(world.path(&name), if is_whole { NOTEBOOK } else { "{" }).unwrap();
        let spelt =
            [world.path(&name), world.path("link").join(&name), world.path(".").join(round.to_string())];
        let opening = (0..12).map(|n| {
            let (daemon, path) = (Arc::clone(&daemon), spelt[n % spelt.len()].clone());
            TaskTracker::new().spawn(async move { asked(&daemon, by(&path)).await })
        });
        let opened: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
        if is_whole {
            let ids: Vec<_> = opened.into_iter().map(|opened| opened.unwrap().session_id).collect();
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        } else {
            assert!(opened.into_iter().all(|opened| opened.unwrap_err().code == "not-a-notebook"));
        }
    }
    assert_eq!((daemon.context.handles().len(), world.claims()), (10, 10));
}

// C1
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_notebook_is_made_once_whoever_asks_again_with_its_id() {
    let world = World::new();
    let daemon = Arc::new(world.daemon());
    let id = fresh_id();
    let making = (0..12).map(|_| {
        let daemon = Arc::clone(&daemon);
        TaskTracker::new().spawn(async move {
            new(&daemon.context, NewSession { id: Some(id), ..NewSession::default() }).await.unwrap()
        })
    });
    for made in join_all(making).await {
        let made = made.unwrap();
        assert_eq!((made.session_id, made.path), (id, None));
        assert!(made.session.untitled && made.session.trust == Trust::Trusted);
        assert_eq!(made.session.runtime.state, RuntimeState::Down, "its kernel comes with the first run");
        assert_eq!(made.session.saved, Some(SavedState::Untitled), "from its first answer on");
    }
    assert_eq!(daemon.context.handles().len(), 1);
    let notebook = daemon.notebook(id).await;
    assert_eq!(notebook.metadata["kernelspec"]["name"], "python3");
    let [cell] = &notebook.cells[..] else { panic!("{:?}", notebook.cells) };
    assert_eq!((cell.kind, cell.source.as_str()), (CellKindName::Code, ""));
    assert_eq!(daemon.kernels.launches(), 0);
}

#[tokio::test]
async fn a_notebook_that_nobody_vouches_for_starts_nothing_until_somebody_does() {
    // C8
    let world = World::new();
    let path = world.path("theirs.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let at_once = || OpenSession { start: Some(StartWhen::AtOnce), ..by(&path) };
    let opened = asked(&daemon, at_once()).await.unwrap();
    assert_eq!((opened.session.trust, daemon.kernels.launches()), (Trust::Untrusted, 0));
    assert_eq!(opened.session.saved, Some(SavedState::Saved { at: None }), "from its first answer on");
    asked(&daemon, at_once()).await.unwrap();
    assert_eq!(daemon.kernels.launches(), 0, "opening it again is no vouching");
    let id = opened.session_id;
    // Two who vouch for it at once launch one kernel.
    let vouched = || asked(&daemon, OpenSession { trust: Some(Trust::Trusted), ..at_once() });
    let (first, second) = tokio::join!(vouched(), vouched());
    assert_eq!((first.unwrap().session_id, second.unwrap().session_id), (id, id));
    let view = daemon.until(id, |view| view.runtime.state == RuntimeState::Idle).await;
    assert_eq!((view.trust, view.runtime.incarnation.0), (Trust::Trusted, 1));
    // The store knows it from now on, also under another name.
    fs::copy(&path, world.path("copy.ipynb")).unwrap();
    let copy = asked(&daemon, by(&world.path("copy.ipynb"))).await.unwrap();
    assert_eq!(copy.session.trust, Trust::Trusted);
    fs::write(world.path("other.ipynb"), NOTEBOOK.replace("\"1\"", "\"2\"")).unwrap();
    let other = asked(&daemon, by(&world.path("other.ipynb"))).await.unwrap();
    assert_eq!(other.session.trust, Trust::Untrusted, "other code");
}

// C4
#[tokio::test]
async fn whoever_opens_a_path_while_its_session_ends_gets_a_new_one() {
    let world = World::new();
    let path = world.path("a.ipynb");
    fs::write(&path, NOTEBOOK).unwrap();
    let daemon = world.daemon();
    let mut before = daemon.open(&path).await.unwrap().session_id;
    for _ in 0..20 {
        let (closed, opened) = tokio::join!(daemon.close(before, false), daemon.open(&path));
        closed.unwrap();
        let opened = opened.unwrap().session_id;
        let after = daemon.open(&path).await.unwrap().session_id;
        assert_ne!(after, before, "it has ended");
        assert!(opened == before || opened == after, "no third session");
        before = after;
    }
    assert_eq!((daemon.context.handles().len(), world.claims()), (1, 1));
}

// C2
#[tokio::test]
async fn whoever_opens_a_path_that_a_copy_is_being_saved_to_gets_the_copy() {
    let world = World::new();
    let doom = Doom::default();
    let daemon = world.doomed(doom.clone());
    let id = daemon.new_notebook("1").await;
    for round in 0..10 {
        let path = world.path(&format!("{round}.ipynb"));
        let held = doom.hold_writes();
        let opening = async {
            while daemon.context.holder(&path).is_none() {
                tokio::task::yield_now().await;
            }
            let mut opening = std::pin::pin!(daemon.open(&path));
            // It finds the path taken, and waits for the end of that.
            for _ in 0..1_000 {
                assert!(futures_util::poll!(&mut opening).is_pending(), "nothing is there yet");
                tokio::task::yield_now().await;
            }
            drop(held);
            tokio::time::timeout(PATIENCE, opening).await.expect("it does not wait for ever").unwrap()
        };
        let (copied, opened) = tokio::join!(daemon.save_as(id, &path, SaveHow::Copy), opening);
        assert_eq!(copied.unwrap().session_id, id);
        assert_ne!(opened.session_id, id, "a copy is another notebook");
    }
}

#[tokio::test]
async fn a_kernel_is_launched_in_the_notebooks_directory_with_what_the_notebook_says() {
    let world = World::new();
    let daemon = world.daemon();
    let made = new(&daemon.context, NewSession { cwd: Some("/".to_owned()), ..NewSession::default() }).await;
    let id = made.unwrap().session_id;
    let wish = || Ask::Join { start: Some(StartWhen::AtOnce), trust: None };
    daemon.do_ask(id, wish()).await;
    daemon.until(id, |view| view.runtime.state == RuntimeState::Idle).await;
    let order = daemon.kernels.order(id);
    assert_eq!(order.spec.cwd, "/");
    daemon.save_as(id, &world.path("a.ipynb"), SaveHow::Save).await.unwrap();
    assert_eq!(daemon.view(id).runtime.incarnation.0, 1, "a kernel that runs is not moved");
    daemon.do_ask(id, Ask::Restart { run_all: false }).await;
    daemon
        .until(id, |view| view.runtime.incarnation.0 == 2 && view.runtime.state == RuntimeState::Idle)
        .await;
    let order = daemon.kernels.order(id);
    assert_eq!(Path::new(&order.spec.cwd), world.path("a.ipynb").parent().unwrap());
    let Program::OfNotebook { metadata, .. } = &order.spec.program else {
        panic!("{:?}", order.spec.program)
    };
    assert_eq!((&metadata["kernelspec"]["name"], order.trust), (&json!("python3"), Trust::Trusted));
    let new_in_nowhere =
        new(&daemon.context, NewSession { cwd: Some("here".to_owned()), ..NewSession::default() });
    assert_eq!(new_in_nowhere.await.unwrap_err().code, "bad-request");
}
