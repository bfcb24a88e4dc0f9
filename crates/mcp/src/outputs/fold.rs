//! Pieces of output become what there is to see, in bounded room.

use std::collections::VecDeque;

use outlive_core::limits::{MCP_IMAGE_BYTES_MAX, MCP_IMAGES_MAX};
use schemars::JsonSchema;
use serde::Serialize;

use super::piece::{Piece, Rich};
use super::text::{fold_lines, plain};

/// Something to see.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Item {
    /// Text that was printed.
    Stream {
        /// `stdout` or `stderr`.
        name: &'static str,
        /// The text.
        text: String,
    },
    /// A display, or the value of a cell.
    Display {
        /// What its text is.
        mime: String,
        /// Its text.
        text: String,
    },
    /// An image. Those that are attached stand behind the text, in this order.
    Image {
        /// What it is.
        mime: String,
        /// Its size as base64, in bytes.
        bytes: usize,
        /// The text that stands for it.
        text: String,
        /// Whether it is attached.
        attached: bool,
    },
    /// An exception.
    Error {
        /// Its type.
        ename: String,
        /// Its message.
        evalue: String,
        /// Where.
        traceback: String,
    },
    /// Something about the output: what is left out, and how to get it.
    Notice {
        /// What.
        text: String,
    },
}

/// An image to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// What it is.
    pub mime: String,
    /// Its content in base64.
    pub base64: String,
}

/// Which end is kept when there is too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keep {
    /// The beginning: what does not fit is not taken.
    Begin,
    /// The end: what came first goes.
    End,
}

/// How much of a piece was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// All of it.
    Whole,
    /// So many bytes of its text; there is no more room.
    Part(usize),
}

/// What became of what came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// It is all here.
    Here,
    /// Some of it went because there was too much.
    Cut,
    /// The program itself has cleared it.
    Cleared,
}

#[derive(Debug)]
struct Held {
    item: Item,
    image: Option<String>,
    display: Option<String>,
}

/// What there is to see so far.
#[derive(Debug)]
pub struct Fold {
    held: VecDeque<Held>,
    room: usize,
    used: usize,
    keep: Keep,
    before: Before,
    clear_at_next: bool,
}

/// What an item takes up besides its text, in bytes. Bounds how many items there are.
const ITEM_BYTES: usize = 64;
/// How much of an exception's traceback is shown, in bytes: its end, where it happened.
const TRACEBACK_BYTES_MAX: usize = 6 << 10;
/// How much of the text that stands for an image is shown, in bytes.
const ALTERNATIVE_BYTES_MAX: usize = 256;

impl Fold {
    /// Takes from the beginning as much as there is room for.
    pub const fn begin(room: usize) -> Self {
        Self::new(room, Keep::Begin)
    }

    /// Takes everything and keeps the end.
    pub const fn end(room: usize) -> Self {
        Self::new(room, Keep::End)
    }

    const fn new(room: usize, keep: Keep) -> Self {
        Self { held: VecDeque::new(), room, used: 0, keep, before: Before::Here, clear_at_next: false }
    }

    /// What became of what came before the oldest item.
    pub const fn before(&self) -> Before {
        self.before
    }

    /// How much room is left, in bytes.
    pub const fn left(&self) -> usize {
        self.room.saturating_sub(self.used)
    }

    /// Takes a piece, without the first `skip` bytes of its text.
    pub fn push(&mut self, piece: Piece, skip: usize) -> Taken {
        match piece {
            Piece::Nothing => return Taken::Whole,
            Piece::Clear { wait } => {
                self.clear_at_next = wait;
                if !wait {
                    self.clear();
                }
                return Taken::Whole;
            }
            _ => {}
        }
        if self.clear_at_next {
            self.clear();
        }
        let taken = match piece {
            Piece::Nothing | Piece::Clear { .. } => Taken::Whole,
            Piece::Stream { name, text } => self.text(&text, skip, |text| Item::Stream { name, text }),
            Piece::Rich(rich) => self.rich(rich, skip),
            Piece::Update(rich) => self.update(rich, skip),
            Piece::Error { ename, evalue, traceback } => {
                let traceback = end_of(traceback, TRACEBACK_BYTES_MAX);
                self.whole(Item::Error { ename, evalue, traceback }, None, None)
            }
            Piece::Notice(text) => self.whole(Item::Notice { text }, None, None),
        };
        if self.keep == Keep::End {
            self.trim();
        }
        taken
    }

    /// Says something behind all that is there, room or not.
    pub fn notice(&mut self, text: String) {
        self.add(Held { item: Item::Notice { text }, image: None, display: None });
    }

    /// What there is to see; images are added to those that the answer has already.
    pub fn finish(self, images: &mut Vec<Image>) -> Vec<Item> {
        let held = self.held.into_iter();
        held.map(|Held { mut item, image, .. }| {
            match &mut item {
                Item::Stream { text, .. } | Item::Display { text, .. } => *text = plain(text),
                Item::Image { mime, bytes, attached, .. } => {
                    let fits = *bytes <= MCP_IMAGE_BYTES_MAX && images.len() < MCP_IMAGES_MAX;
                    if let (true, Some(base64)) = (fits, image) {
                        images.push(Image { mime: mime.clone(), base64 });
                        *attached = true;
                    }
                }
                Item::Error { .. } | Item::Notice { .. } => {}
            }
            item
        })
        .collect()
    }

    fn clear(&mut self) {
        self.held.clear();
        self.used = 0;
        self.before = Before::Cleared;
        self.clear_at_next = false;
    }

    /// Text that may be taken in part.
    fn text(&mut self, text: &str, skip: usize, item: impl FnOnce(String) -> Item) -> Taken {
        let text = &text[text.floor_char_boundary(skip)..];
        let fits = match self.keep {
            Keep::End => text.len(),
            Keep::Begin => text.floor_char_boundary(self.left()),
        };
        if fits > 0 || text.is_empty() {
            self.append(item(text[..fits].to_owned()));
        }
        if fits < text.len() { Taken::Part(fits) } else { Taken::Whole }
    }

    /// Printed text goes on where the same stream printed last.
    fn append(&mut self, new: Item) {
        if let (Some(Held { item: Item::Stream { name, text }, .. }), Item::Stream { name: to, text: more }) =
            (self.held.back_mut(), &new)
            && name == to
        {
            let from = text.len();
            text.push_str(more);
            fold_lines(text, from);
            self.used = (self.used + text.len()).saturating_sub(from);
            return;
        }
        let mut new = new;
        if let Item::Stream { text, .. } = &mut new {
            fold_lines(text, 0);
        }
        self.add(Held { item: new, image: None, display: None });
    }

    fn rich(&mut self, rich: Rich, skip: usize) -> Taken {
        let Rich { mime, text, image, display } = rich;
        match image {
            Some(image) => {
                let text = text[..text.floor_char_boundary(ALTERNATIVE_BYTES_MAX)].to_owned();
                let item = Item::Image { mime, bytes: image.len(), text, attached: false };
                self.whole(item, Some(image), display)
            }
            None => {
                let taken = self.text(&text, skip, |text| Item::Display { mime, text });
                if let Some(held) = self.held.back_mut() {
                    held.display = display;
                }
                taken
            }
        }
    }

    /// The displays of this id show something else now; one that is not here is a new one to this reader.
    fn update(&mut self, rich: Rich, skip: usize) -> Taken {
        let is_same = |held: &Held| held.display.is_some() && held.display == rich.display;
        if !self.held.iter().any(is_same) {
            return self.rich(rich, skip);
        }
        let mut fresh = Self::begin(self.room);
        fresh.rich(rich.clone(), 0);
        let Some(new) = fresh.held.pop_front() else { return Taken::Whole };
        for held in self.held.iter_mut().filter(|held| is_same(held)) {
            self.used = (self.used + cost(&new.item)).saturating_sub(cost(&held.item));
            held.item = new.item.clone();
            held.image.clone_from(&new.image);
        }
        Taken::Whole
    }

    /// An item that is taken as a whole or not at all; the first one is taken in any case.
    fn whole(&mut self, item: Item, image: Option<String>, display: Option<String>) -> Taken {
        if self.keep == Keep::Begin && !self.held.is_empty() && cost(&item) > self.left() {
            return Taken::Part(0);
        }
        self.add(Held { item, image, display });
        Taken::Whole
    }

    fn add(&mut self, held: Held) {
        self.used += cost(&held.item);
        let has_image = held.image.is_some();
        self.held.push_back(held);
        if has_image {
            let images: Vec<&mut Option<String>> =
                self.held.iter_mut().map(|held| &mut held.image).filter(|image| image.is_some()).collect();
            let surplus = images.len().saturating_sub(MCP_IMAGES_MAX);
            images.into_iter().take(surplus).for_each(|image| *image = None);
        }
    }

    /// What came first goes until the rest fits.
    fn trim(&mut self) {
        while self.used > self.room {
            let surplus = self.used - self.room;
            let Some(oldest) = self.held.front_mut() else { return };
            if self.before != Before::Cleared {
                self.before = Before::Cut;
            }
            match &mut oldest.item {
                Item::Stream { text, .. } | Item::Display { text, .. } if text.len() > surplus => {
                    let from = text.ceil_char_boundary(surplus);
                    text.drain(..from);
                    self.used -= from;
                }
                item => {
                    self.used -= cost(item);
                    self.held.pop_front();
                }
            }
        }
    }
}

fn cost(item: &Item) -> usize {
    ITEM_BYTES
        + match item {
            Item::Stream { text, .. }
            | Item::Display { text, .. }
            | Item::Image { text, .. }
            | Item::Notice { text } => text.len(),
            Item::Error { ename, evalue, traceback } => ename.len() + evalue.len() + traceback.len(),
        }
}

fn end_of(mut text: String, bytes_max: usize) -> String {
    if let Some(surplus) = text.len().checked_sub(bytes_max)
        && surplus > 0
    {
        let from = text.ceil_char_boundary(surplus);
        text.replace_range(..from, &format!("[{from} bytes of the traceback are left out here]\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(text: &str) -> Piece {
        Piece::Stream { name: "stdout", text: text.to_owned() }
    }

    fn display(id: &str, text: &str) -> Rich {
        let display = Some(id.to_owned());
        Rich { mime: "text/plain".to_owned(), text: text.to_owned(), image: None, display }
    }

    fn image(base64: &str) -> Piece {
        let image = Some(base64.to_owned());
        Piece::Rich(Rich { mime: "image/png".to_owned(), text: "<Figure>".to_owned(), image, display: None })
    }

    fn stream(text: &str) -> Item {
        Item::Stream { name: "stdout", text: text.to_owned() }
    }

    #[test]
    fn whoever_asks_on_behind_each_part_reads_every_byte_once() {
        let text = "äöü 0123456789 ".repeat(50);
        let (mut skip, mut read) = (0, String::new());
        loop {
            let mut fold = Fold::begin(100);
            let taken = fold.push(print(&text), skip);
            for item in fold.finish(&mut Vec::new()) {
                let Item::Stream { text, .. } = item else { panic!("{item:?}") };
                read.push_str(&text);
            }
            match taken {
                Taken::Whole => break,
                Taken::Part(more) => skip += more,
            }
        }
        assert_eq!(read, text);
    }

    #[test]
    fn of_too_much_the_end_is_kept() {
        let mut fold = Fold::end(200);
        for number in 0..1_000 {
            fold.push(print(&format!("line {number}\n")), 0);
        }
        assert_eq!(fold.before(), Before::Cut);
        let [Item::Stream { text, .. }] = &fold.finish(&mut Vec::new())[..] else { panic!("one stream") };
        assert!(text.len() <= 200 && text.ends_with("line 998\nline 999\n"), "{text}");
    }

    #[test]
    fn what_a_program_clears_is_gone() {
        let mut fold = Fold::end(1_000);
        fold.push(print("old"), 0);
        fold.push(Piece::Clear { wait: true }, 0);
        assert_eq!(fold.before(), Before::Here, "until the next output comes");
        fold.push(print("new"), 0);
        assert_eq!(fold.before(), Before::Cleared);
        assert_eq!(fold.finish(&mut Vec::new()), [stream("new")]);
    }

    #[test]
    fn a_display_is_updated_where_it_stands() {
        let mut fold = Fold::begin(1_000);
        fold.push(Piece::Rich(display("d", "1 %")), 0);
        fold.push(print("x"), 0);
        fold.push(Piece::Update(display("d", "100 %")), 0);
        let shown = Item::Display { mime: "text/plain".to_owned(), text: "100 %".to_owned() };
        assert_eq!(fold.finish(&mut Vec::new()), [shown, stream("x")]);
    }

    #[test]
    fn images_are_attached_up_to_a_number_and_a_size() {
        let mut fold = Fold::begin(10_000);
        fold.push(image(&"A".repeat(MCP_IMAGE_BYTES_MAX + 1)), 0);
        for _ in 1..MCP_IMAGES_MAX {
            fold.push(image("AAAA"), 0);
        }
        let mut images = Vec::new();
        let items = fold.finish(&mut images);
        assert_eq!(images.len(), MCP_IMAGES_MAX - 1);
        assert!(matches!(items[0], Item::Image { attached: false, .. }), "too large");
        assert!(matches!(items[1], Item::Image { attached: true, bytes: 4, .. }));
    }
}
