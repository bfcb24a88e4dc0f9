//! Tables that fit their terminal: first whole columns give way, then one is cut, then the main one.

use crate::terminal::{self, Ink, Paint};

/// A cell with its colour.
pub type Cell = (Option<Ink>, String);

/// A cell without a colour.
pub fn cell(text: impl Into<String>) -> Cell {
    (None, text.into())
}

/// A column that may be cut, and its narrowest width.
pub type Elastic = (usize, usize);

/// What a table looks like.
pub struct Shape<'a> {
    /// The names of its columns.
    pub head: &'a [&'a str],
    /// The column that is cut on a narrow terminal.
    pub main: Elastic,
    /// The column that is cut before it where nothing is left to give way.
    pub spare: Elastic,
    /// The columns that are left out before anything is cut below its narrowest width, in this order.
    pub give_way: &'a [usize],
}

impl Shape<'_> {
    /// The table as text, each line ended by a line feed.
    pub fn text(&self, rows: &[Vec<Cell>], width: usize, paint: Paint) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|name| name.len()).collect();
        for row in rows {
            for (width, (_, cell)) in widths.iter_mut().zip(row) {
                *width = (*width).max(console::measure_text_width(cell));
            }
        }
        let ((main, main_min), (spare, spare_min)) = (self.main, self.spare);
        let mut columns: Vec<usize> = (0..self.head.len()).collect();
        let others = |columns: &[usize], widths: &[usize]| {
            let cells: usize =
                columns.iter().filter(|column| **column != main).map(|column| widths[*column]).sum();
            cells + 2 * (columns.len() - 1)
        };
        for column in self.give_way {
            if others(&columns, &widths) + widths[main].min(main_min) <= width {
                break;
            }
            columns.retain(|shown| shown != column);
        }
        let over = (others(&columns, &widths) + widths[main].min(main_min)).saturating_sub(width);
        widths[spare] = widths[spare].saturating_sub(over).max(widths[spare].min(spare_min));
        let rest = width.saturating_sub(others(&columns, &widths));
        widths[main] = widths[main].min(rest.max(main_min));
        let mut text = String::new();
        let head: Vec<Cell> = self.head.iter().map(|name| (Some(Ink::Bold), (*name).to_owned())).collect();
        for row in std::iter::once(&head).chain(rows) {
            line(&mut text, row, &columns, &widths, paint);
        }
        text
    }
}

fn line(text: &mut String, row: &[Cell], columns: &[usize], widths: &[usize], paint: Paint) {
    let start = text.len();
    for column in columns {
        let (ink, cell) = &row[*column];
        let cell = terminal::fit(cell, widths[*column]);
        let blank = widths[*column].saturating_sub(console::measure_text_width(&cell)) + 2;
        match ink.filter(|_| !cell.is_empty()) {
            Some(ink) => text.push_str(&paint.text(ink, cell).to_string()),
            None => text.push_str(&cell),
        }
        text.push_str(&" ".repeat(blank));
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

/// An age in its largest unit.
pub fn age(micros: u64) -> String {
    match micros / 1_000_000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
