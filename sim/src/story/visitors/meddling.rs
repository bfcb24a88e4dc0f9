//! Other programs: they write into files, rename and delete them, leave half of one; and disks that take nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{NODE, Visitor};
use crate::files::{SHARED, Stuck};
use crate::world::World;

impl Visitor {
    /// Does something to a file now and then.
    pub(super) async fn meddles(mut self) {
        let done = self.name.clone();
        self.client.ledger.begin(&done);
        let world = Arc::clone(&self.world);
        while self.client.is_time_left() {
            if self.client.random.happens(500) {
                self.stays_away().await;
            } else {
                self.client.wait(100..3_000).await;
            }
            let files = world.disks.shared();
            if files.is_empty() {
                continue;
            }
            let path = self.client.random.one(&files).clone();
            match self.client.random.of(0..100) {
                0..=49 => self.writes_into(&world, &path),
                50..=54 => drop(world.disks.change(&world, NODE, &path, |there| there.map(<[u8]>::to_vec))),
                55..=69 => self.renames(&world, &path),
                70..=79 => self.leaves_half(&world, &path).await,
                80..=87 => self.deletes(&world, &path).await,
                _ => self.sticks(&world, &path).await,
            }
        }
        self.client.ledger.done(&done);
    }

    /// Puts a mark into one of its cells, or into a new one.
    fn writes_into(&mut self, world: &World, path: &Path) {
        let (mark, nth) = (self.marks.fresh(), self.client.random.place(6));
        if world.disks.change(world, NODE, path, |there| with_mark(there?, &mark, nth)) {
            self.marks.put_outside(mark);
        }
    }

    fn renames(&mut self, world: &World, path: &Path) {
        let to = PathBuf::from(format!("{SHARED}/r{}.ipynb", self.marks.number()));
        world.disks.rename(world, NODE, path, &to);
    }

    /// The first half of it, and most often all of it again, with a mark, if nobody has decided otherwise.
    async fn leaves_half(&mut self, world: &Arc<World>, path: &Path) {
        let mut whole = Vec::new();
        world.disks.change(world, NODE, path, |there| {
            whole = there?.to_vec();
            Some(whole[..whole.len() / 2].to_vec())
        });
        self.client.wait(100..4_000).await;
        let (mark, nth) = (self.marks.fresh(), self.client.random.place(6));
        let half = &whole[..whole.len() / 2];
        let is_whole_again = !whole.is_empty()
            && self.client.random.happens(800)
            && world.disks.change(world, NODE, path, |there| {
                there.filter(|there| *there == half)?;
                with_mark(&whole, &mark, nth)
            });
        if is_whole_again {
            self.marks.put_outside(mark);
        } else {
            self.marks.destroy(&whole);
        }
    }

    /// And most often brings it back, if nobody has written it anew.
    async fn deletes(&mut self, world: &Arc<World>, path: &Path) {
        let Some(content) = world.disks.delete(world, NODE, path) else { return };
        self.client.wait(100..4_000).await;
        let is_back = self.client.random.happens(600)
            && world.disks.change(world, NODE, path, |there| there.is_none().then(|| content.clone()));
        if !is_back {
            self.marks.destroy(&content);
        }
    }

    /// Sometimes for ever.
    async fn sticks(&mut self, world: &Arc<World>, path: &Path) {
        let how = *self.client.random.one(&[Stuck::ReadOnly, Stuck::Full]);
        world.disks.stick(world, NODE, path, Some(how));
        self.client.wait(100..6_000).await;
        if self.client.random.happens(850) {
            world.disks.stick(world, NODE, path, None);
        }
    }
}

/// The same notebook with a mark; `None` when it is none.
fn with_mark(bytes: &[u8], mark: &str, nth: usize) -> Option<Vec<u8>> {
    let mut notebook: Value = serde_json::from_slice(bytes).ok()?;
    let cells = notebook["cells"].as_array_mut()?;
    let len = cells.len();
    match cells.get_mut(nth) {
        Some(cell) => {
            let source = match &cell["source"] {
                Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
                other => other.as_str()?.to_owned(),
            };
            cell["source"] = json!(format!("{source}{mark}"));
        }
        None => {
            let id = format!("file-{}", mark.trim_matches(['#', ';']));
            let source = format!("say {len} 1000 {mark}");
            cells.push(json!({"cell_type": "code", "execution_count": null, "id": id, "metadata": {}, "outputs": [], "source": source}));
        }
    }
    serde_json::to_vec(&notebook).ok()
}
