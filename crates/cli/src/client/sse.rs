//! Server-sent events as bytes come in (WHATWG HTML §9.2.6): fields, comments, `id:` that stays until the next one.

/// Largest event, in bytes. A coalesced record with its JSON escapes stays far below it.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The cursor to come back with, when this event is a place to come back to.
    pub id: Option<String>,
    /// The lines of `data:`, joined.
    pub data: String,
}

/// A stream that is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SseError {
    /// One event is larger than any that the daemon sends.
    #[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
    /// Events are UTF-8.
    #[error("an event is not valid UTF-8")]
    NotUtf8,
}

/// Cuts bytes into events. Comments (the server's signs of life) vanish.
#[derive(Default, Debug)]
pub struct Reader {
    pending: Vec<u8>,
    /// How much of `pending` was searched for a line's end already.
    searched: usize,
    id: Option<String>,
    data: Option<String>,
}

impl Reader {
    /// Takes what came in and gives the events that it completes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, SseError> {
        self.pending.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut start = 0;
        while let Some(length) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + length;
            let line = std::str::from_utf8(&self.pending[start..end]).map_err(|_| SseError::NotUtf8)?;
            let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
            start = end + 1;
            self.searched = start;
            if let Some(frame) = self.line(&line) {
                frames.push(frame);
            }
        }
        self.pending.drain(..start);
        self.searched = self.pending.len();
        let held = self.pending.len() + self.data.as_ref().map_or(0, String::len);
        if held > EVENT_BYTES_MAX { Err(SseError::TooLarge) } else { Ok(frames) }
    }

    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let id = self.id.take();
            return self.data.take().map(|data| Frame { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "id" => self.id = Some(value.to_owned()),
            // `event:` repeats what the data says; `retry:` and whatever comes later is not for us.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: Option<&str>, data: &str) -> Frame {
        Frame { id: id.map(str::to_owned), data: data.to_owned() }
    }

    const STREAM: &str = ": hello\n\nid: 7\nevent: output\ndata: {\"a\":\ndata: \"é\"}\n\n:\n\nretry: 5\ndata:x\r\n\r\nid: 9\n\n";

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let whole = Reader::default().push(STREAM.as_bytes()).expect("valid");
        assert_eq!(whole, [frame(Some("7"), "{\"a\":\n\"é\"}"), frame(None, "x")]);
        for size in 1..STREAM.len() {
            let mut reader = Reader::default();
            let mut all = Vec::new();
            for part in STREAM.as_bytes().chunks(size) {
                all.extend(reader.push(part).expect("valid"));
            }
            assert_eq!(all, whole, "cut every {size} bytes");
        }
    }

    #[test]
    fn half_an_event_is_none() {
        assert_eq!(Reader::default().push(b"id: 1\ndata: {\"cut").expect("valid"), []);
    }

    #[test]
    fn rubbish_is_refused() {
        assert_eq!(Reader::default().push(b"data: \xff\n"), Err(SseError::NotUtf8));
        let mut reader = Reader::default();
        let line = vec![b'x'; 1 << 20];
        let refused = (0..100).find_map(|_| reader.push(&line).err());
        assert_eq!(refused, Some(SseError::TooLarge), "memory is bounded");
    }
}
