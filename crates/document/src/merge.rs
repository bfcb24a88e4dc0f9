//! Which cell of a changed file is which of ours.

use std::collections::{HashMap, HashSet};

use crate::cell::Cell;

/// Which of `ours` is which of `theirs`, by index: by their ids; without ids, by what stands between equal neighbours,
/// or by their source.
///
/// Cells of ours for which `is_ours_alone`, and of theirs for which `is_known` says yes, are the same by their ids only.
pub(crate) fn same_cells(
    ours: &[Cell],
    theirs: &[Cell],
    (is_ours_alone, is_known): (impl Fn(&Cell) -> bool, impl Fn(&Cell) -> bool),
) -> HashMap<usize, usize> {
    let mut pairs = HashMap::new();
    let ids: HashMap<&str, usize> =
        theirs.iter().enumerate().filter_map(|(index, cell)| Some((cell.id()?, index))).collect();
    for (index, cell) in ours.iter().enumerate() {
        if let Some(&other) = cell.id().and_then(|id| ids.get(id)) {
            pairs.insert(index, other);
        }
    }
    // Cells without ids; and all, when the other program has drawn all ids anew.
    let is_without = |cell: &Cell| cell.id().is_none();
    let is_redrawn = pairs.is_empty();
    let free =
        |count: usize, taken: &dyn Fn(usize) -> bool| (0..count).filter(|&i| !taken(i)).collect::<Vec<_>>();
    let paired: HashSet<usize> = pairs.values().copied().collect();
    let left = free(ours.len(), &|index| {
        pairs.contains_key(&index) || is_ours_alone(&ours[index]) || !(is_redrawn || is_without(&ours[index]))
    });
    let right = free(theirs.len(), &|index| {
        paired.contains(&index) || is_known(&theirs[index]) || !(is_redrawn || is_without(&theirs[index]))
    });
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
