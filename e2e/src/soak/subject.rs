//! One session, and what must be true of it.
//!
//! Whatever is written into its notebook, by whoever, carries a mark of its own, and the notebook's first cell names the
//! session. So whether an edit was lost, and whether a file holds another session's notebook, can be seen in the text.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Field, KERNELS_MAX, fresh_path, soon};
use crate::clock::{PATIENCE, poll, within};
use crate::process::{self, Signal};
use crate::random::Random;
use crate::{Peer, Session, notebook};

/// Peers of one session at a time.
const PEERS_MAX: usize = 3;
/// Edits after which a notebook is large enough.
const MARKS_MAX: usize = 60;

/// How many of the last deeds are remembered.
const DEEDS_REMEMBERED: usize = 30;

type Deed = fn(&mut Subject, &Field<'_>, &mut Random);

/// Whether a session goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// It does.
    GoesOn,
    /// It was closed.
    Closed,
}

/// A session under test.
pub struct Subject {
    session: Session,
    token: String,
    path: Option<PathBuf>,
    marks: Vec<String>,
    peers: Vec<Peer>,
    /// The start of the daemon that its peers are attached to.
    start: u64,
    has_kernel: bool,
    /// What was done with it last, for who has to find out what went wrong.
    did: VecDeque<&'static str>,
}

impl Subject {
    /// A new session: untitled, or of a file.
    pub fn begin(field: &Field<'_>, token: &str, random: &mut Random) -> Self {
        let api = field.world.api();
        let named = format!("# {token};");
        let (session, path) = if random.one_in(2) {
            let session = field.world.untitled();
            session.add_cell(&named);
            (session, None)
        } else {
            let path = fresh_path(field, token, random);
            let text = notebook::with_cells(&[&named]).to_string();
            fs::write(&path, text).expect("the work directory can be written");
            (Session::open(&api, &path), Some(path))
        };
        let has_kernel = field
            .kernels
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < KERNELS_MAX).then_some(n + 1))
            .is_ok();
        let start = field.starts.load(Ordering::Relaxed);
        Self {
            session,
            token: token.to_owned(),
            path,
            marks: vec![named],
            peers: Vec::new(),
            start,
            has_kernel,
            did: VecDeque::new(),
        }
    }

    /// Does one thing with the session.
    pub fn does_something(&mut self, field: &Field<'_>, random: &mut Random) -> Then {
        self.come_back(field);
        let (what, deed): (_, Deed) = match random.below(20) {
            0..=3 => ("inserts", |it, _, _| it.insert()),
            4..=7 => ("types", |it, _, random| it.types(random)),
            8 => ("joins", |it, _, _| it.joins()),
            9 => ("leaves", |it, _, _| drop(it.peers.pop())),
            10..=11 => ("saves", Self::saves),
            12 => ("saves as", Self::moves),
            13 => ("copies", Self::is_copied),
            14 => ("is renamed", Self::is_renamed),
            15 => ("is edited by another program", Self::is_edited_by_another_program),
            16..=17 => ("runs", |it, _, _| it.runs()),
            18 => ("loses its kernel", |it, _, random| it.loses_its_kernel(random)),
            _ if random.one_in(4) || self.marks.len() > MARKS_MAX => return self.closes(field),
            _ => return Then::GoesOn,
        };
        self.did.push_back(what);
        if self.did.len() > DEEDS_REMEMBERED {
            self.did.pop_front();
        }
        deed(self, field, random);
        Then::GoesOn
    }

    /// After a restart of the daemon its peers come back with what they have.
    fn come_back(&mut self, field: &Field<'_>) {
        let start = field.starts.load(Ordering::Relaxed);
        if self.start != start {
            self.start = start;
            self.did.push_back("finds the daemon restarted");
            for peer in &mut self.peers {
                peer.rejoin(&self.session);
            }
        }
        let view = self.session.view();
        assert_eq!(view["id"], self.session.id, "an id never changes");
        assert_eq!(view["path"], json!(self.path), "its path is what it was given: {view}");
        assert_eq!(view["untitled"], self.path.is_none(), "{view}");
    }

    fn mark(&mut self) -> String {
        let mark = format!("# {}.{};", self.token, self.marks.len());
        self.marks.push(mark.clone());
        mark
    }

    fn insert(&mut self) {
        let mark = self.mark();
        self.session.add_cell(&format!("{mark}\nprint('{}')", self.marks.len()));
    }

    fn joins(&mut self) {
        if self.peers.len() < PEERS_MAX {
            self.peers.push(Peer::join(&self.session));
        }
    }

    fn types(&mut self, random: &mut Random) {
        if self.peers.is_empty() {
            self.joins();
        }
        let mark = self.mark();
        let at = usize::try_from(random.below(self.peers.len() as u64)).expect("an index");
        let cells = self.peers[at].cells();
        let cell = &cells[usize::try_from(random.below(cells.len() as u64)).expect("an index")];
        let id = cell["id"].as_str().expect("a cell has an id").to_owned();
        self.peers[at].type_into(&id, 0, &format!("{mark}\n"));
    }

    /// Waits until the session has all that was ever written.
    fn has_it_all(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        let had = poll(within(PATIENCE), || {
            let sources = self.session.sources();
            let text = sources.concat();
            lacks = self.marks.iter().filter(|mark| !text.contains(*mark)).cloned().collect();
            lacks.is_empty().then_some(sources)
        });
        had.unwrap_or_else(|| panic!("{} lacks {lacks:?} after {:?}", self.session.id, self.did))
    }

    fn saves(&mut self, field: &Field<'_>, random: &mut Random) {
        if self.path.is_some() {
            self.session.save(&json!({}));
        } else {
            self.gets_path(fresh_path(field, &self.token, random), "save");
        }
    }

    fn moves(&mut self, field: &Field<'_>, random: &mut Random) {
        self.gets_path(fresh_path(field, &self.token, random), "save_as");
    }

    fn gets_path(&mut self, path: PathBuf, how: &str) {
        let saved = self.session.save(&json!({"path": path, "how": how}));
        assert_eq!(saved["path"], json!(path), "{saved}");
        self.path = Some(path);
    }

    fn is_copied(&mut self, field: &Field<'_>, random: &mut Random) {
        let sources = self.has_it_all();
        let copy = fresh_path(field, &self.token, random);
        self.session.save(&json!({"path": copy, "how": "copy"}));
        assert_eq!(sources_of(&copy), sources, "a copy is a copy");
        fs::remove_file(&copy).expect("it is there");
    }

    fn is_renamed(&mut self, field: &Field<'_>, random: &mut Random) {
        let Some(path) = self.path.clone() else { return };
        self.has_it_all();
        self.session.save(&json!({}));
        // A file is followed while somebody has the session open; a dormant one looks when it is woken.
        self.joins();
        let new = fresh_path(field, &self.token, random);
        fs::rename(&path, &new).expect("a saved notebook has a file");
        soon(&format!("{} follows its file from {path:?} to {new:?}", self.session.id), || {
            (self.session.view()["path"] == json!(new)).then_some(())
        });
        self.path = Some(new);
    }

    /// Adds a cell to the file, in one step or in place.
    fn is_edited_by_another_program(&mut self, field: &Field<'_>, random: &mut Random) {
        let Some(path) = self.path.clone() else { return };
        self.has_it_all();
        self.session.save(&json!({}));
        let mark = self.mark();
        let mut text = notebook::read(&path);
        let cells = text["cells"].as_array_mut().expect("cells are a list");
        let id = format!("other-{}", self.marks.len());
        cells.push(json!({"cell_type": "markdown", "id": id, "metadata": {}, "source": mark}));
        let bytes = text.to_string();
        if random.one_in(2) {
            let beside = field.world.work().join(format!(".{}.tmp", self.token));
            fs::write(&beside, bytes).expect("the work directory can be written");
            fs::rename(&beside, &path).expect("the file is there");
        } else {
            fs::write(&path, bytes).expect("the file can be written");
        }
        self.has_it_all();
    }

    fn runs(&mut self) {
        if !self.has_kernel {
            return;
        }
        let view = self.session.view();
        if matches!(crate::session::runtime_state(&view), "exited" | "gave_up") {
            self.session.post("/restart", &json!({}));
        }
        let mark = self.mark();
        let cell = self.session.add_cell(&format!("{mark}\nprint('out of {}')", self.token));
        let ran = self.session.run_cell(&cell);
        assert_eq!(ran.stdout(), format!("out of {}\n", self.token), "{:?}", ran.outcome);
    }

    fn loses_its_kernel(&mut self, random: &mut Random) {
        let view = self.session.view();
        let Some(pid) = view["runtime"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        let Some(kernel) = process::find(pid) else { return };
        let victim = if random.one_in(3) { kernel.parent } else { pid };
        process::signal(victim, Signal::KILL);
        assert!(process::wait_gone(&kernel, within(PATIENCE)), "the kernel is left: {kernel:?}");
        soon("its death is known", || (self.session.view()["runtime"]["pid"] != json!(pid)).then_some(()));
    }

    /// Closed, its file has everything and is free.
    fn closes(&mut self, field: &Field<'_>) -> Then {
        self.has_it_all();
        self.peers.clear();
        self.session.close(self.path.is_none());
        if let Some(path) = &self.path {
            let text = sources_of(path).concat();
            let lost: Vec<_> = self.marks.iter().filter(|mark| !text.contains(*mark)).collect();
            assert!(lost.is_empty(), "{} lost {lost:?}: {text}", self.session.id);
            fs::remove_file(path).expect("it is there");
        }
        if self.has_kernel {
            field.kernels.fetch_sub(1, Ordering::Relaxed);
        }
        let status = field.world.api().request("DELETE", &self.session.path(""), None).status;
        assert!(status < 300, "an ended session can be forgotten: {status}");
        Then::Closed
    }

    /// Every peer and the file have what the session has, and nobody else's.
    ///
    /// # Panics
    /// When one has not.
    pub fn is_the_same_everywhere(&mut self, field: &Field<'_>) {
        self.come_back(field);
        let sources = self.has_it_all();
        for peer in &mut self.peers {
            peer.wait_until("the session's cells", within(PATIENCE), |cells| {
                cells.iter().map(|cell| cell["source"].as_str().unwrap_or_default()).eq(&sources)
            });
        }
        let Some(path) = &self.path else { return };
        self.session.save(&json!({}));
        let file = sources_of(path);
        assert_eq!(file, sources, "the file {path:?} is the notebook of {}", self.session.id);
        for line in file.concat().lines().filter_map(|line| line.strip_prefix("# ")) {
            let its = line.starts_with(&self.token);
            assert!(its, "{path:?} of {} holds another's {line:?}", self.token);
        }
    }

    /// Nobody is attached and no kernel runs.
    pub fn leave(&mut self) {
        self.peers.clear();
        let pid = self.session.view()["runtime"]["pid"].clone();
        if !pid.is_null() {
            self.session.post("/rest", &json!({}));
        }
    }
}

fn sources_of(path: &Path) -> Vec<String> {
    let cells = notebook::read(path)["cells"].clone();
    let sources = cells.as_array().into_iter().flatten().map(|cell: &Value| notebook::text(&cell["source"]));
    sources.collect()
}
