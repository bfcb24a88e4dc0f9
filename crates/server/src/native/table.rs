//! Every route, once.

use super::route::{Route, delete, get, post, put};
use super::{handlers as h, nodes as n, runners as r};
use crate::openai::handlers as o;

/// The table. The order is that of the OpenAPI document.
#[rustfmt::skip]
pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/v1/live", "getLive", "Whether a daemon is there. Needs no token; without one, pid and state directory are left out", n::live),
        get("/v1/ready", "getReady", "Whether the daemon takes work; 503 with the reason while it does not", n::ready),
        get("/v1/node", "getNode", "Who this daemon is", n::node),
        post("/v1/node/stop", "stopNode", "Ask the daemon to end", n::stop),
        post("/v1/node/drain", "drainNode", "Hand everything over to the other nodes", n::drain),
        get("/v1/nodes", "listNodes", "The nodes of the cluster as this one sees them; none when it is alone", n::nodes),
        get("/v1/doctor", "getDoctor", "Look at what the daemon needs", h::doctor),
        get("/v1/openapi.json", "getOpenApi", "This document", h::openapi),
        get("/v1/sessions", "listSessions", "The sessions, newest first", h::sessions),
        post("/v1/sessions", "createSession", "Make a session; the same id again gives the same session", h::create),
        post("/v1/sessions/new", "newSession", "Make an untitled notebook; the same id again gives the same session", h::new_session),
        post("/v1/sessions/open", "openSession", "Open a notebook by its path, or a session by its id", h::open),
        get("/v1/sessions/{id}", "getSession", "One session", h::session),
        delete("/v1/sessions/{id}", "forgetSession", "Forget an ended session and its log", h::forget),
        get("/v1/sessions/{id}/attach", "attachSession", "Everything that happens in a session, in log order; the id of an event is a log position", h::attach),
        get("/v1/sessions/{id}/document", "joinDocument", "Edit the notebook live, over a WebSocket", h::document),
        get("/v1/sessions/{id}/notebook", "getNotebook", "The notebook as it is now", h::notebook),
        post("/v1/sessions/{id}/notebook", "editNotebook", "Edit the notebook, all or nothing", h::edit),
        get("/v1/sessions/{id}/cells/{cell}/outputs", "getCellOutputs", "The outputs of a cell, in nbformat's form", h::cell_outputs),
        post("/v1/sessions/{id}/save", "saveSession", "Save the notebook: where it is, for the first time, as another file, or as a copy", h::save),
        post("/v1/sessions/{id}/trust", "trustSession", "Vouch for the notebook, or take that back", h::trust),
        post("/v1/sessions/{id}/close", "closeSession", "Save the notebook, stop the kernel and end the session", h::close),
        post("/v1/sessions/{id}/rest", "restSession", "Stop the kernel and keep the session; the next run starts it again", h::rest),
        post("/v1/sessions/{id}/interrupt", "interruptSession", "Interrupt what runs", h::interrupt),
        post("/v1/sessions/{id}/restart", "restartSession", "Start the runtime again; running and queued work is cancelled", h::restart),
        post("/v1/sessions/{id}/stop", "stopSession", "Stop the runtime and close the session", h::stop),
        get("/v1/sessions/{id}/runs", "listRuns", "The runs of a session, in the order in which they were queued", h::runs),
        post("/v1/sessions/{id}/runs", "submitRuns", "Queue work, all or nothing", h::submit),
        get("/v1/sessions/{id}/runs/{run}", "getRun", "One run", h::run),
        delete("/v1/sessions/{id}/runs/{run}", "cancelRun", "Cancel a run", h::cancel),
        post("/v1/sessions/{id}/runs/{run}/input", "answerRun", "Answer a run's question", h::input),
        get("/v1/sessions/{id}/runs/{run}/attach", "attachRun", "The output of one run; the id of an event is ATTEMPT.SEQ", h::attach_run),
        get("/v1/sessions/{id}/reports", "listReports", "The failures of a session, oldest first", h::reports),
        get("/v1/sessions/{id}/takeovers", "listTakeovers", "How a session went from node to node, oldest first", n::takeovers),
        get("/v1/sessions/{id}/blobs/{sha256}", "getBlob", "A large content, whole", h::blob),
        get("/v1/runners", "listGroups", "The groups of runners that are up", r::groups),
        get("/v1/runners/{name}", "getGroup", "One group of runners, with its members", r::group),
        put("/v1/runners/{name}", "bringGroupUp", "Bring a group of runners up; one that is up with the same configuration is left alone", r::up),
        delete("/v1/runners/{name}", "bringGroupDown", "Stop all runners of a group and end it", r::down),
        post("/v1/runners/{name}/start", "startRunners", "Start a runner of the group, or all that are down", r::start),
        post("/v1/runners/{name}/stop", "stopRunners", "Stop a runner of the group, or all; the group stays", r::stop),
        post("/v1/runners/{name}/restart", "restartRunners", "Start a runner of the group anew, or all", r::restart),
        get("/v1/runners/{name}/tasks", "listTasks", "The tasks of a group, in the order in which they were queued", r::tasks),
        post("/v1/runners/{name}/tasks", "submitTask", "Queue a task; the same id or key again gives the same task", r::submit),
        get("/v1/runners/{name}/tasks/{run}", "getTask", "One task", r::task),
        delete("/v1/runners/{name}/tasks/{run}", "cancelTask", "Cancel a task; one that has ended is left alone", r::cancel),
        get("/v1/runners/{name}/tasks/{run}/attach", "attachTask", "The output of one task; the id of an event is ATTEMPT.SEQ", r::attach),
        post("/v1/chat/completions", "createChatCompletion", "OpenAI's chat completions; the model is a group whose runners declare `chat`", o::chat),
        get("/v1/models", "listModels", "The groups that can chat, as OpenAI lists models", o::models),
        get("/v1/models/{model}", "getModel", "One group that can chat", o::model),
        get("/metrics", "getMetrics", "The daemon's counters, in Prometheus' text format", h::metrics),
    ]
}
