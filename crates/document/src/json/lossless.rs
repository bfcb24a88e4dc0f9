//! Objects and arrays that keep the text between their values.

use std::ops::Range;

use super::scan::{ScanError, Scanner, unescape};
use super::{Style, format};

/// The values of an object or array, with the text around them as it stood in the file.
///
/// Invariant: `glue.len() == items.len() + 1`. `glue[i]` stands before `items[i]`: brackets, commas, white space, and
/// for an object the key. Every `glue[i]` with `0 < i < items.len()` has one comma before anything but white space.
#[derive(Clone, Debug)]
pub(crate) struct Sequence<T> {
    glue: Vec<Box<str>>,
    items: Vec<T>,
}

impl<T> Sequence<T> {
    pub fn items(&self) -> &[T] {
        &self.items
    }

    pub fn items_mut(&mut self) -> &mut [T] {
        &mut self.items
    }

    /// Puts `item` at `index`. `label` is what stands before it in its own line (the key of a member); `level` is the
    /// depth of the items.
    pub fn insert(&mut self, index: usize, item: T, label: &str, style: &Style, level: usize) {
        let lead = style.lead(level);
        if self.items.is_empty() {
            let brackets: Vec<char> = self.glue[0].chars().filter(|c| !c.is_whitespace()).collect();
            let (open, close) = (brackets[0], brackets[brackets.len() - 1]);
            self.glue = vec![
                format!("{open}{lead}{label}").into(),
                format!("{}{close}", style.lead(level.saturating_sub(1))).into(),
            ];
        } else if index == 0 {
            let (open, rest) = self.glue[0].split_at(1);
            let moved =
                format!(",{}{}", if style.is_compact() { style.gap(level) } else { String::new() }, rest);
            let first = format!("{open}{lead}{label}");
            self.glue[0] = moved.into();
            self.glue.insert(0, first.into());
        } else {
            self.glue.insert(index, format!(",{}{label}", style.gap(level)).into());
        }
        self.items.insert(index, item);
    }

    /// Takes the value at `index` out, with the comma that parted it from its neighbour.
    pub fn remove(&mut self, index: usize) -> T {
        let removed = self.items.remove(index);
        let before = self.glue.remove(index);
        if index == 0 {
            let after = &self.glue[0];
            let rest = if self.items.is_empty() {
                after.trim_start()
            } else {
                after.split_once(',').expect("a comma parts two items").1
            };
            self.glue[0] = format!("{}{rest}", &before[..1]).into();
        }
        removed
    }

    /// Writes the text back, each item by `each`.
    pub fn write(&self, out: &mut String, mut each: impl FnMut(&mut String, &T)) {
        for (glue, item) in self.glue.iter().zip(&self.items) {
            out.push_str(glue);
            each(out, item);
        }
        out.push_str(self.glue.last().expect("there is one more glue than items"));
    }

    /// The white space after the opening bracket and after the first comma: how the file is laid out.
    pub fn layout(&self) -> (&str, &str) {
        let space = |glue: &str, after: char| -> Range<usize> {
            let start = glue.find(after).map_or(0, |at| at + 1);
            let end = glue[start..].find(|c: char| !c.is_whitespace()).map_or(glue.len(), |at| start + at);
            start..end
        };
        let first = self.glue.first().map_or("", |glue| &glue[space(glue, '{')]);
        let second = if self.items.len() > 1 { &self.glue[1][space(&self.glue[1], ',')] } else { "" };
        (first, second)
    }

    /// The text before the item at `index`.
    pub fn before(&self, index: usize) -> &str {
        &self.glue[index]
    }
}

/// Splits an array that the scanner stands on. `each` must step over a value.
pub(crate) fn split_array<T>(
    scanner: &mut Scanner<'_>,
    mut each: impl FnMut(&mut Scanner<'_>) -> Result<T, ScanError>,
) -> Result<Sequence<T>, ScanError> {
    let (mut glue, mut items) = (Vec::new(), Vec::new());
    let mut from = scanner.pos();
    scanner.array(|scanner| {
        glue.push(scanner.text(from..scanner.pos()).into());
        items.push(each(scanner)?);
        from = scanner.pos();
        Ok(())
    })?;
    glue.push(scanner.text(from..scanner.pos()).into());
    Ok(Sequence { glue, items })
}

/// The members of an object, in their order, keys unescaped. Where a key stands twice the last counts, as in Python.
#[derive(Clone, Debug)]
pub(crate) struct Members<T> {
    sequence: Sequence<(String, T)>,
}

impl<T> Members<T> {
    /// Splits an object that the scanner stands on. `each` must step over the value of the key that it gets.
    pub fn split(
        scanner: &mut Scanner<'_>,
        mut each: impl FnMut(&mut Scanner<'_>, &str) -> Result<T, ScanError>,
    ) -> Result<Self, ScanError> {
        let (mut glue, mut items) = (Vec::new(), Vec::new());
        let mut from = scanner.pos();
        scanner.object(|scanner, key| {
            glue.push(scanner.text(from..scanner.pos()).into());
            let key = unescape(scanner.text(key));
            let value = each(scanner, &key)?;
            items.push((key, value));
            from = scanner.pos();
            Ok(())
        })?;
        glue.push(scanner.text(from..scanner.pos()).into());
        Ok(Self { sequence: Sequence { glue, items } })
    }

    pub fn get(&self, key: &str) -> Option<&T> {
        self.sequence.items.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        self.sequence.items.iter_mut().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Replaces the value of `key`, or adds it: in its place where the keys are sorted, else at the end.
    pub fn set(&mut self, key: &str, value: T, style: &Style, level: usize) {
        if let Some(old) = self.get_mut(key) {
            *old = value;
            return;
        }
        let items = &self.sequence.items;
        let end = items.len();
        let index = if items.is_sorted_by(|a, b| a.0 <= b.0) {
            items.iter().position(|(name, _)| name.as_str() > key).unwrap_or(end)
        } else {
            end
        };
        let mut label = String::new();
        format::write_string(&mut label, key);
        label.push_str(&style.colon);
        self.sequence.insert(index, (key.to_owned(), value), &label, style, level);
    }

    /// The names, in their order; one that stands twice comes twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sequence.items.iter().map(|(name, _)| name.as_str())
    }

    /// Removes every member of this name.
    pub fn remove(&mut self, key: &str) {
        while let Some(index) = self.sequence.items.iter().position(|(name, _)| name == key) {
            self.sequence.remove(index);
        }
    }

    pub fn write(&self, out: &mut String, mut each: impl FnMut(&mut String, &str, &T)) {
        self.sequence.write(out, |out, (key, value)| each(out, key, value));
    }

    pub fn sequence(&self) -> &Sequence<(String, T)> {
        &self.sequence
    }
}

/// Splits an object into its members' texts.
pub(crate) fn split_object(scanner: &mut Scanner<'_>) -> Result<Members<Box<str>>, ScanError> {
    Members::split(scanner, |scanner, _| {
        let range = scanner.value()?;
        Ok(scanner.text(range).into())
    })
}
