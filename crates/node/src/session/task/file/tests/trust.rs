//! What another program makes of an open notebook is not what somebody has vouched for.

use std::fs;
use std::path::Path;

use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::spec::{StartWhen, Trust};
use outlive_protocol::http::{OpenSession, Opened, RuntimeState, SaveSession, SubmitRuns};
use serde_json::{Value, json};

use super::notebook;
use super::world::{Daemon, World};
use crate::session::handle::Ask;
use crate::session::open;

/// Opens it, and its kernel is to start with it.
async fn open(daemon: &Daemon, path: &Path, trust: Option<Trust>) -> Opened {
    let path = Some(path.display().to_string());
    let request = OpenSession { path, trust, start: Some(StartWhen::AtOnce), ..OpenSession::default() };
    open::open(&daemon.context, request).await.unwrap()
}

async fn close(daemon: &Daemon, opened: &Opened) {
    daemon.close(opened.session_id, false).await.unwrap();
    daemon.until_ended(opened.session_id).await;
}

/// Another program edits the file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut notebook: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut notebook);
    fs::write(path, notebook.to_string()).unwrap();
}

fn needs_more(notebook: &mut Value) {
    notebook["metadata"]["outlive"] = json!({"requirements": ["six==1.17.0"]});
}

fn other_code(notebook: &mut Value) {
    notebook["cells"][0]["source"] = json!(["theirs"]);
}

async fn until_untrusted(daemon: &Daemon, opened: &Opened) {
    daemon.until(opened.session_id, |view| view.trust == Trust::Untrusted).await;
}

#[tokio::test]
async fn what_another_program_brings_into_a_trusted_notebook_starts_and_installs_nothing() {
    // C8
    for change in [needs_more, other_code] {
        let world = World::new();
        let (daemon, path) = (world.daemon(), world.path("n.ipynb"));
        fs::write(&path, notebook(&["mine"])).unwrap();
        let opened = daemon.open(&path).await.unwrap();
        daemon.trust(opened.session_id, Trust::Trusted).await;
        edit(&path, change);
        until_untrusted(&daemon, &opened).await;
        let joined = open(&daemon, &path, None).await;
        assert_eq!((joined.session_id, joined.session.trust), (opened.session_id, Trust::Untrusted));
        // What is saved over it here makes it no better.
        daemon.set_source(opened.session_id, "a", "of both").await;
        daemon.save(opened.session_id, SaveSession::default()).await.unwrap();
        close(&daemon, &opened).await;
        let again = open(&daemon, &path, None).await;
        assert_eq!(again.session.trust, Trust::Untrusted);
        assert_eq!(daemon.kernels.launches(), 0);
        // Who looks at it may vouch for it again.
        daemon.trust(again.session_id, Trust::Trusted).await;
        daemon.until(again.session_id, |view| view.runtime.state == RuntimeState::Idle).await;
        close(&daemon, &again).await;
        assert_eq!(open(&daemon, &path, None).await.session.trust, Trust::Trusted);
    }
}

#[tokio::test]
async fn a_kernel_that_runs_goes_on_when_another_program_edits_its_notebook() {
    let world = World::new();
    let (daemon, path) = (world.daemon(), world.path("n.ipynb"));
    fs::write(&path, notebook(&["mine"])).unwrap();
    let opened = open(&daemon, &path, Some(Trust::Trusted)).await;
    let id = opened.session_id;
    daemon.do_ask(id, Ask::Submit(SubmitRuns::Code { code: "forever()".to_owned() })).await;
    let before = daemon.until(id, |view| view.current.is_some()).await;
    edit(&path, needs_more);
    until_untrusted(&daemon, &opened).await;
    let after = daemon.view(id);
    assert_eq!((after.current, after.runtime), (before.current, before.runtime));
    assert_eq!(daemon.kernels.launches(), 1);
}

#[tokio::test]
async fn texts_outputs_own_writes_and_what_was_vouched_for_before_leave_a_notebook_trusted() {
    let world = World::new();
    let (daemon, path) = (world.daemon(), world.path("n.ipynb"));
    fs::write(&path, notebook(&["mine", "text"])).unwrap();
    edit(&path, |notebook| {
        let text = &mut notebook["cells"][1];
        text["cell_type"] = json!("markdown");
        text.as_object_mut().unwrap().retain(|key, _| !["outputs", "execution_count"].contains(&&**key));
    });
    let before = fs::read(&path).unwrap();
    let opened = daemon.open(&path).await.unwrap();
    let id = opened.session_id;
    daemon.trust(id, Trust::Trusted).await;
    edit(&path, |notebook| {
        notebook["cells"][1]["source"] = json!(["another text"]);
        notebook["cells"][0]["outputs"] = json!([{"output_type": "stream", "name": "stdout", "text": "1"}]);
    });
    daemon.until_source(id, "another text").await;
    assert_eq!(daemon.view(id).trust, Trust::Trusted);
    // Edited and saved here, touched and written back by another program.
    daemon.set_source(id, "a", "mine, later").await;
    daemon.save(id, SaveSession::default()).await.unwrap();
    fs::write(&path, fs::read(&path).unwrap()).unwrap();
    daemon.save(id, SaveSession::default()).await.unwrap();
    assert_eq!(daemon.view(id).trust, Trust::Trusted);
    // As by `git checkout`: the version that somebody has vouched for.
    fs::write(&path, before).unwrap();
    daemon.until_source(id, "mine").await;
    assert_eq!(daemon.view(id).trust, Trust::Trusted);
    close(&daemon, &opened).await;
    assert_eq!(daemon.open(&path).await.unwrap().session.trust, Trust::Trusted);
}

#[tokio::test]
async fn what_comes_into_a_notebook_with_its_last_save_is_not_trusted_either() {
    let world = World::new();
    let (daemon, path) = (world.daemon(), world.path("n.ipynb"));
    fs::write(&path, notebook(&["mine", "too"])).unwrap();
    let opened = daemon.open(&path).await.unwrap();
    let id = opened.session_id;
    daemon.trust(id, Trust::Trusted).await;
    daemon.set_source(id, "b", "edited").await;
    edit(&path, other_code);
    daemon.do_ask(id, Ask::Stop { why: StopWhy::User, from: StopStep::Kill }).await;
    daemon.until_ended(id).await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("theirs") && text.contains("edited"), "{text}");
    assert_eq!(daemon.open(&path).await.unwrap().session.trust, Trust::Untrusted);
}
