//! Displays that are updated in place. Where nothing can be overwritten, only what they show in the end is printed: when
//! their run has ended.

use outlive_protocol::http::ChunkView;

/// How many displays are remembered at once. What the one that was updated first shows is printed when there are more.
const DISPLAYS_MAX: usize = 64;

/// What updated displays show now, by their ids.
#[derive(Default, Debug)]
pub struct Updates(Vec<(String, String)>);

impl Updates {
    /// An update: a display shows this text now. Gives what has to be printed to make room for it.
    pub fn put(&mut self, chunk: &ChunkView, text: String) -> Option<String> {
        let content = chunk.content.as_ref();
        let id = content.and_then(|content| content.pointer("/transient/display_id")?.as_str());
        let id = id.unwrap_or_default();
        if let Some((_, shown)) = self.0.iter_mut().find(|(known, _)| known == id) {
            *shown = text;
            return None;
        }
        self.0.push((id.to_owned(), text));
        (self.0.len() > DISPLAYS_MAX).then(|| self.0.remove(0).1)
    }

    /// What they show in the end, in the order of their first updates.
    pub fn take(&mut self) -> impl Iterator<Item = String> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::log::ChunkKind;
    use outlive_core::time::WallTime;
    use serde_json::json;

    use super::*;

    fn update(id: usize) -> ChunkView {
        let content = json!({"data": {}, "transient": {"display_id": id.to_string()}});
        let kind = ChunkKind::UpdateDisplayData;
        ChunkView { kind, at: WallTime(0), text: None, base64: None, content: Some(content), blob: None }
    }

    #[test]
    fn of_each_display_the_last_state_is_left() {
        let mut updates = Updates::default();
        for (id, text) in [(1, "a 1"), (2, "b 1"), (1, "a 2")] {
            assert_eq!(updates.put(&update(id), text.to_owned()), None);
        }
        assert_eq!(updates.take().collect::<Vec<_>>(), ["a 2", "b 1"]);
        assert_eq!(updates.take().next(), None, "printed once");
    }

    #[test]
    fn what_finds_no_room_is_printed_and_not_forgotten() {
        let mut updates = Updates::default();
        assert!((0..DISPLAYS_MAX).all(|id| updates.put(&update(id), id.to_string()).is_none()));
        assert_eq!(updates.put(&update(DISPLAYS_MAX), "last".to_owned()).as_deref(), Some("0"));
        assert_eq!(updates.take().count(), DISPLAYS_MAX);
    }
}
