//! A file that another program has changed while runs go on: what people wrote is theirs, what ran is ours.

use std::collections::HashMap;

use crate::cell::{Cell, CellKey, CellKind};
use crate::notebook::Notebook;

impl Notebook {
    /// Takes over the notebook as another program has left it in the file, and keeps the outputs of our runs and the
    /// keys of our cells. Cells are the same by their id; without ids, by what stands between equal neighbours, or by
    /// their source. A cell whose source they changed keeps our outputs below the new source, as when it is edited in
    /// a front end while it runs.
    ///
    /// Gives the cells whose outputs have no place any more, because the cell was deleted or is no code now: a
    /// conflict that the caller must not lose ([`Notebook::to_bytes`] of before still has them).
    ///
    /// Sources that were changed on our side and not saved yet are not in the result: set them again.
    #[must_use = "outputs of deleted cells are lost when nobody keeps them"]
    pub fn rebase(&mut self, mut theirs: Notebook) -> Vec<CellKey> {
        let pairs = same_cells(self.cell_list(), theirs.cell_list());
        theirs.take_keys(self, &pairs);
        let mut lost = Vec::new();
        for cell in self.cells().filter(|cell| self.projection.has(cell.key())) {
            let kept = theirs.cell(cell.key()).is_some_and(|cell| cell.kind() == CellKind::Code);
            if !kept {
                lost.push(cell.key().clone());
            }
        }
        theirs.projection = std::mem::take(&mut self.projection);
        *self = theirs;
        for key in &lost {
            self.projection.forget(key);
        }
        let run: Vec<CellKey> =
            self.cells().map(|cell| cell.key().clone()).filter(|key| self.projection.has(key)).collect();
        for key in run {
            self.ensure_output_fields(&key).expect("the key is a cell's of this notebook");
        }
        lost
    }
}

/// Which of `ours` is which of `theirs`, by index.
pub(crate) fn same_cells(ours: &[Cell], theirs: &[Cell]) -> HashMap<usize, usize> {
    let mut pairs = HashMap::new();
    let ids: HashMap<&str, usize> =
        theirs.iter().enumerate().filter_map(|(index, cell)| Some((cell.id()?, index))).collect();
    for (index, cell) in ours.iter().enumerate() {
        if let Some(&other) = cell.id().and_then(|id| ids.get(id)) {
            pairs.insert(index, other);
        }
    }
    // Cells without ids, or with ids that the other program has drawn anew.
    let free =
        |count: usize, taken: &dyn Fn(usize) -> bool| (0..count).filter(|&i| !taken(i)).collect::<Vec<_>>();
    let left = free(ours.len(), &|index| pairs.contains_key(&index));
    let right = free(theirs.len(), &|index| pairs.values().any(|&other| other == index));
    let looks = |cell: &Cell| (cell.kind, cell.source());
    let lefts: Vec<_> = left.iter().map(|&index| looks(&ours[index])).collect();
    let rights: Vec<_> = right.iter().map(|&index| looks(&theirs[index])).collect();

    let head = lefts.iter().zip(&rights).take_while(|(a, b)| a == b).count();
    let tail =
        lefts[head..].iter().rev().zip(rights[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = (head..left.len() - tail, head..right.len() - tail);
    pairs.extend(left.iter().copied().zip(right.iter().copied()).take(head));
    pairs.extend(left.iter().copied().rev().zip(right.iter().copied().rev()).take(tail));
    if middle.0.len() == middle.1.len() {
        pairs.extend(middle.0.zip(middle.1).map(|(a, b)| (left[a], right[b])));
        return pairs;
    }
    let mut rest: Vec<usize> = middle.1.collect();
    for a in middle.0 {
        if let Some(at) = rest.iter().position(|&b| rights[b] == lefts[a]) {
            pairs.insert(left[a], right[rest.remove(at)]);
        }
    }
    pairs
}
