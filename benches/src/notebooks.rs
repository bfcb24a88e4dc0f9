//! Notebooks that are opened, edited by two, saved, and killed in mid-save.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use outlive_e2e::clock::{now, within};
use outlive_e2e::process;
use outlive_e2e::{Daemon, Peer, Session, World, notebook};
use serde_json::{Value, json};

use crate::Contestant;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A daemon for notebooks without kernels.
pub struct Notebooks {
    world: World,
    daemon: Option<Daemon>,
    /// Files that were made, so that each has a name of its own.
    made: u64,
}

impl Notebooks {
    /// Starts it.
    pub fn start() -> Self {
        let mut world = World::new();
        // Sessions stay in memory while they are measured.
        world.set("OUTLIVE_IDLE_TIMEOUT_S", "3600");
        let daemon = Some(world.daemon());
        Self { world, daemon, made: 0 }
    }

    fn file(&mut self, cells: u64) -> Result<PathBuf> {
        self.made += 1;
        let path = self.world.work().join(format!("n{}.ipynb", self.made));
        fs::write(&path, with_cells(cells).to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Times from asking for a notebook to having all of it at a peer, in seconds.
    fn open(&mut self, cells: u64, n: u64) -> Result<Value> {
        let mut times = Vec::new();
        for _ in 0..n {
            let path = self.file(cells)?;
            let began = now();
            let session = Session::open(&self.world.api(), &path);
            let peer = Peer::join(&session);
            times.push(began.elapsed().as_secs_f64());
            ensure!(peer.cells().len() as u64 == cells, "the notebook is not complete");
            drop(peer);
            session.close(true);
        }
        Ok(json!(times))
    }

    /// Times from an edit at one peer to the same at another, in seconds.
    fn edit(&mut self, cells: u64, n: u64) -> Result<Value> {
        let session = Session::open(&self.world.api(), &self.file(cells)?);
        let (mut one, mut other) = (Peer::join(&session), Peer::join(&session));
        let mut times = Vec::new();
        for turn in 0..n {
            let began = now();
            one.type_into("cell-0", 0, &format!("#{turn} "));
            other.receive(within(PATIENCE));
            times.push(began.elapsed().as_secs_f64());
        }
        let source = other.cells()[0]["source"].to_string();
        ensure!(source.contains(&format!("#{} ", n - 1)), "the last edit is not there: {source}");
        drop((one, other));
        session.close(true);
        Ok(json!(times))
    }

    /// Times of a save after an edit, in seconds.
    fn save(&mut self, cells: u64, n: u64) -> Result<Value> {
        let path = self.file(cells)?;
        let session = Session::open(&self.world.api(), &path);
        let mut times = Vec::new();
        for turn in 0..n {
            session.set_source("cell-0", &format!("turn = {turn}"));
            let began = now();
            session.save(&json!({}));
            times.push(began.elapsed().as_secs_f64());
            ensure!(
                notebook::read(&path)["cells"][0]["source"] == json!([format!("turn = {turn}")]),
                "not saved"
            );
        }
        session.close(true);
        Ok(json!(times))
    }

    /// Times from asking for a notebook that has left memory to having all of it at a peer, in seconds.
    fn reopen(cells: u64, n: u64) -> Result<Value> {
        let mut world = World::new();
        world.set("OUTLIVE_IDLE_TIMEOUT_S", "1");
        let _daemon = world.daemon();
        let path = world.work().join("n.ipynb");
        fs::write(&path, with_cells(cells).to_string()).context("cannot write the notebook")?;
        let session = Session::open(&world.api(), &path);
        session.set_source("cell-0", "edited = 1");
        let mut times = Vec::new();
        for _ in 0..n {
            outlive_e2e::clock::eventually("the session leaves memory", within(PATIENCE), || {
                (session.view()["loaded"] == false).then_some(())
            });
            let began = now();
            let peer = Peer::join(&session);
            times.push(began.elapsed().as_secs_f64());
            ensure!(peer.cells()[0]["source"] == "edited = 1", "the edit is gone");
        }
        Ok(json!(times))
    }

    /// What a daemon of its own holds with idle sessions, in bytes, and its files.
    fn idle_sessions(sessions: u64) -> Value {
        let mut world = World::new();
        world.set("OUTLIVE_IDLE_TIMEOUT_S", "3600");
        let daemon = world.daemon();
        for n in 0..sessions {
            let path = world.notebook(&format!("idle-{n}.ipynb"), &["a = 1", "b = 2", "print(a + b)"]);
            let _opened = Session::open(&world.api(), &path);
        }
        json!({
            "memory_bytes": process::memory_bytes(daemon.pid()),
            "open_files": process::open_files(daemon.pid()),
        })
    }

    /// How many files are torn, and how many edits lost, after so many SIGKILLs in the middle of a save.
    fn kill_save(&mut self, megabytes: u64, n: u64) -> Result<Value> {
        let path = self.world.work().join("big.ipynb");
        let mut text = with_cells(2);
        let line = format!("{}\n", "x".repeat(79));
        let lines = vec![line; usize::try_from(megabytes << 20).unwrap_or(usize::MAX) / 80];
        text["cells"][0]["outputs"] = json!([{"output_type": "stream", "name": "stdout", "text": lines}]);
        fs::write(&path, text.to_string()).context("cannot write the notebook")?;
        let mut session = Session::open(&self.world.api(), &path);
        let mut torn = 0_u64;
        for turn in 0..n {
            session.set_source("cell-1", &format!("turn = {turn}"));
            let (api, target) = (self.world.api(), session.path("/save"));
            let saving = std::thread::spawn(move || drop(api.try_request("POST", &target, Some(&json!({})))));
            // From the first to the last moment of a save, evenly: it takes some tenths of a second.
            std::thread::sleep(Duration::from_millis(turn * 37 % 300));
            self.daemon.take().context("there is a daemon")?.kill();
            saving.join().map_err(|_| anyhow::anyhow!("the save's thread panicked"))?;
            let bytes = fs::read(&path).context("the file is gone")?;
            torn += u64::from(serde_json::from_slice::<Value>(&bytes).is_err());
            self.daemon = Some(self.world.daemon());
            session = Session::open(&self.world.api(), &path);
            let source = session.sources()[1].clone();
            ensure!(source == format!("turn = {turn}"), "the edit of turn {turn} is gone: {source}");
        }
        session.close(true);
        let left: Vec<_> = leftovers(&self.world.work())?;
        ensure!(left.is_empty(), "temporary files are left: {left:?}");
        Ok(json!(torn))
    }
}

impl Contestant for Notebooks {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let number = |name: &str| request[name].as_u64().with_context(|| format!("{name} in {request}"));
        match request["measure"].as_str().unwrap_or_default() {
            "open" => self.open(number("cells")?, number("n")?),
            "edit" => self.edit(number("cells")?, number("n")?),
            "save" => self.save(number("cells")?, number("n")?),
            "reopen" => Self::reopen(number("cells")?, number("n")?),
            "idle_sessions" => Ok(Self::idle_sessions(number("sessions")?)),
            "kill_save" => self.kill_save(number("megabytes")?, number("n")?),
            other => bail!("no measure {other:?}"),
        }
    }
}

/// As in `benches/peers/notebooks_client.py`.
fn with_cells(cells: u64) -> Value {
    let sources: Vec<String> = (0..cells).map(|n| format!("value_{n} = {n}\nprint(value_{n})")).collect();
    notebook::with_cells(&sources.iter().map(String::as_str).collect::<Vec<_>>())
}

fn leftovers(folder: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<std::io::Result<_>>()?;
    Ok(names.into_iter().filter(|name| !name.ends_with(".ipynb")).collect())
}
