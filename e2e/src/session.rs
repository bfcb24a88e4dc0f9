//! One session, through the API.

use std::path::Path;

use serde_json::{Value, json};

use crate::clock::{Deadline, PATIENCE, within};
use crate::events::{Event, Events};
use crate::http::Api;
use crate::transcript::Transcript;

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    api: Api,
    /// Its id.
    pub id: String,
}

impl Session {
    /// Creates one.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[must_use]
    #[track_caller]
    pub fn create(api: &Api, body: &Value) -> Self {
        let view = api.post("/v1/sessions", body);
        let id = view["id"].as_str().unwrap_or_else(|| panic!("a session without an id: {view}")).to_owned();
        Self { api: api.clone(), id }
    }

    /// One that exists.
    #[must_use]
    pub fn existing(api: &Api, id: impl Into<String>) -> Self {
        Self { api: api.clone(), id: id.into() }
    }

    /// A new untitled notebook.
    ///
    /// # Panics
    /// When the daemon refuses, or answers with a path.
    #[must_use]
    #[track_caller]
    pub fn untitled(api: &Api, body: &Value) -> Self {
        let opened = api.post("/v1/sessions/new", body);
        assert_eq!(opened["path"], Value::Null, "{opened}");
        Self::of(api, &opened)
    }

    /// A notebook's session.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[must_use]
    #[track_caller]
    pub fn open(api: &Api, path: &Path) -> Self {
        Self::of(api, &api.post("/v1/sessions/open", &json!({"path": path})))
    }

    /// The session of an answer to `new`, `open` or `save`.
    ///
    /// # Panics
    /// When it does not say which, or puts a path there.
    #[must_use]
    #[track_caller]
    pub fn of(api: &Api, opened: &Value) -> Self {
        let id = opened["session_id"].as_str().unwrap_or_default();
        assert!(!id.is_empty() && !id.contains('/'), "no session's id: {opened}");
        assert_eq!(opened["session"]["id"], id, "{opened}");
        Self { api: api.clone(), id: id.to_owned() }
    }

    /// The daemon that has it.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/sessions/{}{rest}", self.id)
    }

    /// Its view.
    #[must_use]
    #[track_caller]
    pub fn view(&self) -> Value {
        self.api.get(&self.path(""))
    }

    /// The pid of its process.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let view = self.view();
        let pid = view["runtime"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("no process: {view}"))
    }

    /// Everything that happens in it, from now on (first its state).
    #[must_use]
    #[track_caller]
    pub fn events(&self) -> Events {
        self.api.events(&self.path("/attach?follow=true"), None)
    }

    /// Waits until its state fits.
    ///
    /// # Panics
    /// At the deadline, with the states seen.
    #[track_caller]
    pub fn wait_until(&self, what: &str, deadline: Deadline, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let is_it = |event: &Event| event.name == "session" && fits(&event.data["session"]);
        self.events().wait_for(what, deadline, is_it).data["session"].clone()
    }

    /// Waits until its runtime is in this state (`idle`, `busy`, `exited`, …).
    ///
    /// # Panics
    /// At the deadline, with the states seen.
    #[track_caller]
    pub fn wait_runtime(&self, state: &str) -> Value {
        self.wait_until(state, within(PATIENCE), |view| runtime_state(view) == state)
    }

    /// Saves it to a path, or where it is, and gives the answer.
    ///
    /// # Panics
    /// When the daemon refuses, or answers with another session.
    #[track_caller]
    pub fn save(&self, body: &Value) -> Value {
        let saved = self.post("/save", body);
        assert_eq!(saved["session_id"], self.id, "{saved}");
        saved
    }

    /// A save that must be refused.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn save_refused(&self, body: &Value) -> Value {
        self.api.refused(&self.path("/save"), body)
    }

    /// Its notebook as it is now, with outputs.
    #[must_use]
    #[track_caller]
    pub fn notebook(&self) -> Value {
        self.api.get(&self.path("/notebook?outputs=true"))
    }

    /// The sources of its cells, in order.
    #[must_use]
    #[track_caller]
    pub fn sources(&self) -> Vec<String> {
        let notebook = self.notebook();
        let cells = notebook["cells"].as_array().into_iter().flatten();
        cells.map(|cell| cell["source"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Edits its notebook and gives the answer.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[track_caller]
    pub fn edit(&self, edits: &Value) -> Value {
        self.post("/notebook", &json!({"edits": edits}))
    }

    /// Adds a code cell at the end and gives its id.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[track_caller]
    pub fn add_cell(&self, source: &str) -> String {
        let edited = self.edit(&json!([{"edit": "insert", "kind": "code", "source": source}]));
        edited["cells"][0].as_str().unwrap_or_else(|| panic!("no cell: {edited}")).to_owned()
    }

    /// Gives a cell another source.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[track_caller]
    pub fn set_source(&self, cell: &str, source: &str) {
        self.edit(&json!([{"edit": "set_source", "cell": cell, "source": source}]));
    }

    /// Queues cells and gives their runs' ids.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[track_caller]
    pub fn submit_cells(&self, cells: &[&str]) -> Vec<String> {
        let runs = self.post("/runs", &json!({"kind": "cell_ids", "cells": cells}));
        let runs = runs.as_array().unwrap_or_else(|| panic!("no runs: {runs}"));
        runs.iter().map(|run| run["id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Runs a cell to its end.
    ///
    /// # Panics
    /// When it takes longer than a minute.
    #[track_caller]
    pub fn run_cell(&self, cell: &str) -> Transcript {
        self.outcome(&self.submit_cells(&[cell])[0], within(PATIENCE))
    }

    /// Waits until its edits and outputs are where this says: `saved`, `unsaved`, `conflict`, …
    ///
    /// # Panics
    /// At the deadline, with the states seen.
    #[track_caller]
    pub fn wait_saved(&self, state: &str) -> Value {
        self.wait_until(state, within(PATIENCE), |view| view["saved"]["state"] == state)
    }

    /// Closes it, also with edits that no file has, and waits for its end.
    ///
    /// # Panics
    /// When it is not closed within a minute.
    #[track_caller]
    pub fn close(&self, discard: bool) -> Value {
        self.post("/close", &json!({"discard": discard}));
        self.wait_closed()
    }

    /// Queues code and gives the run's id.
    ///
    /// # Panics
    /// When the daemon refuses.
    #[track_caller]
    pub fn submit(&self, code: &str) -> String {
        let runs = self.api.post(&self.path("/runs"), &json!({"kind": "code", "code": code}));
        runs[0]["id"].as_str().unwrap_or_else(|| panic!("no run: {runs}")).to_owned()
    }

    /// The stream of one run, from the cursor on.
    #[must_use]
    #[track_caller]
    pub fn attach(&self, run: &str, cursor: Option<&str>) -> Events {
        self.api.events(&self.path(&format!("/runs/{run}/attach?follow=true")), cursor)
    }

    /// Waits for the end of one run and gives its output.
    ///
    /// # Panics
    /// At the deadline, or when the stream ends before the run.
    #[track_caller]
    pub fn outcome(&self, run: &str, deadline: Deadline) -> Transcript {
        let mut transcript = Transcript::default();
        let ended = transcript.follow(&mut self.attach(run, None), deadline);
        assert!(ended, "the stream of run {run} ended before the run");
        transcript
    }

    /// Runs code to its end.
    ///
    /// # Panics
    /// When it takes longer than a minute.
    #[track_caller]
    pub fn run(&self, code: &str) -> Transcript {
        self.outcome(&self.submit(code), within(PATIENCE))
    }

    /// One run's view.
    #[must_use]
    #[track_caller]
    pub fn run_view(&self, run: &str) -> Value {
        self.api.get(&self.path(&format!("/runs/{run}")))
    }

    /// The ids of its runs, in order.
    #[must_use]
    #[track_caller]
    pub fn runs(&self) -> Vec<String> {
        let runs = self.api.get(&self.path("/runs"));
        runs.as_array()
            .into_iter()
            .flatten()
            .filter_map(|run| run["id"].as_str().map(ToOwned::to_owned))
            .collect()
    }

    /// Waits until its work is over and its process gone.
    ///
    /// # Panics
    /// When it is not within a minute.
    #[track_caller]
    pub fn wait_closed(&self) -> Value {
        self.wait_until("closed", within(PATIENCE), |view| !view["closed_at"].is_null())
    }

    /// Stops it and waits until it is closed.
    ///
    /// # Panics
    /// When it is not within a minute.
    #[track_caller]
    pub fn stop(&self) -> Value {
        self.post("/stop", &json!({}));
        self.wait_closed()
    }

    /// Its failure reports.
    #[must_use]
    #[track_caller]
    pub fn reports(&self) -> Vec<Value> {
        self.api.get(&self.path("/reports")).as_array().cloned().unwrap_or_default()
    }

    /// POST to a path below it, which must succeed.
    #[track_caller]
    pub fn post(&self, rest: &str, body: &Value) -> Value {
        self.api.post(&self.path(rest), body)
    }
}

/// The state of the runtime in a session's view.
#[must_use]
pub fn runtime_state(view: &Value) -> &str {
    view["runtime"]["state"]["state"].as_str().unwrap_or_default()
}
