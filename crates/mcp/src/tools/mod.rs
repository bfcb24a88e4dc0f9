//! The tools: what a model is told of each, and what each does.

mod brief;
mod cells;
mod files;
mod sessions;
mod work;

use std::sync::LazyLock;

use crate::tool::{About, Effect, Entry};

/// Every tool, in the order in which a model should see them.
pub fn all() -> &'static [Entry] {
    static ALL: LazyLock<Vec<Entry>> = LazyLock::new(table);
    &ALL
}

fn about(
    name: &'static str,
    title: &'static str,
    verb: &'static str,
    effect: Effect,
    text: &'static str,
) -> About {
    About { name, title, text, verb, effect }
}

#[rustfmt::skip]
fn table() -> Vec<Entry> {
    use Effect::{Adds, Changes, Reads};
    vec![
        Entry::new(about("open", "Open a notebook", "open", Adds,
            "Begin work on an existing notebook, by its `path`, or come back to a session by its `id`: one of the two. \
             Joins the session that has the file already. Starts no kernel: the first `run` does. \
             Returns the session; its id is what the other tools take."), files::open),
        Entry::new(about("new", "Make a notebook", "make a notebook", Adds,
            "Begin an untitled notebook with one empty code cell. It is kept without a file until `save` gives it a path. \
             Starts no kernel: the first `run` does. Returns the session."), files::new),
        Entry::new(about("read", "Read cells", "read the notebook", Reads,
            "See the cells of a notebook: id, kind, source, whether they run, and with `outputs` what they show. \
             Use it before `edit` and `run`, which take cells by id. Long notebooks come in parts: go on with `from`."), cells::read),
        Entry::new(about("edit", "Edit cells", "edit the notebook", Changes,
            "Change cells: insert, set_source, delete, move, set_kind, set_metadata, clear_outputs; all of them or none. \
             People and programs may edit at the same time: give `expected` with set_source to be refused instead of \
             overwriting what somebody else has typed. Nothing is run. Returns the id of each edit's cell. The file is written by itself a little later."), cells::edit),
        Entry::new(about("run", "Run code", "run", Changes,
            "Run cells by id, all code cells, or `code` that stands in no cell, in order; an error stops what is queued behind. \
             People may edit meanwhile: give `expected` with `cells` to be refused instead of running other code than you have read. \
             Starts the kernel if there is none. Waits up to `wait_s` seconds and returns each run with its id, state and outputs. \
             When the time is over, runs go on and `complete` is false: ask `outputs` with the run's id later. Never run the same cell again just because the time was over."), work::run),
        Entry::new(about("outputs", "Read outputs", "read outputs", Reads,
            "What a run has printed so far (`run`), or what a cell shows (`cell`). With `after`, the cursor of an earlier answer, \
             only what came since; give `wait_s` to wait for a run's end first. A long output is its beginning and its end, and says how to read what is between."), work::outputs),
        Entry::new(about("interrupt", "Interrupt", "interrupt", Changes,
            "Stop what runs now, as Ctrl-C would; what is queued behind is cancelled. The kernel and its variables stay."), work::interrupt),
        Entry::new(about("restart", "Restart the kernel", "restart", Changes,
            "Start the kernel afresh: its variables are gone, running and queued work is cancelled, cells and outputs stay. \
             Use it when a kernel hangs or its state is spoilt; with `run_all` all code cells are queued afterwards."), work::restart),
        Entry::new(about("save", "Save", "save", Changes,
            "Write the notebook to its file now, or give it one: `path` is needed for an untitled notebook. `how`: save (default), \
             save_as (the session moves to the path), copy (the session stays). An existing file of somebody else is never \
             overwritten without `overwrite`. Returns path and id. Notebooks that have a file are also saved by themselves."), files::save),
        Entry::new(about("close", "Close", "close", Changes,
            "Save the notebook, stop its kernel and end the session; its path is free then. Refused while there are edits that \
             no file has, unless `discard`. Leave a session open if you want to come back: it costs nothing."), files::close),
        Entry::new(about("sessions", "List sessions", "list sessions", Reads,
            "The sessions that are open, newest first, with path, kernel and runs; with `all` also those that have ended. \
             Use it to find a notebook's session, or what still runs."), sessions::sessions),
        Entry::new(about("explain", "Explain failures", "explain", Reads,
            "Why a kernel died or a command failed: cause, evidence and what to do, the latest failures of a session. \
             Use it when a run has failed with a cause, or a kernel is gone. An exception of your own code is in `outputs` instead."), sessions::explain),
        Entry::new(about("runs", "List runs", "list runs", Reads,
            "The latest runs of a session with id, cell, state and source: to find a run whose id you have lost, or to see what is queued."), work::runs),
    ]
}
