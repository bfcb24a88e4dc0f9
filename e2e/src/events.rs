//! A stream of server-sent events, read on a thread of its own so that a test can wait with a deadline.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clock::{Deadline, now};
use crate::http::read_chunk;

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Its `id:`, for resuming.
    pub id: Option<String>,
    /// Its `event:`.
    pub name: String,
    /// Its `data:`.
    pub data: Value,
    /// When it was read.
    pub at: Instant,
}

/// Why no further event came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// The deadline passed.
    TimeOver,
    /// The stream ended, by the server's wish or with the server.
    Ended,
}

/// A stream of events. Dropped, it is closed.
#[derive(Debug)]
pub struct Events {
    path: String,
    socket: UnixStream,
    events: Receiver<Event>,
    /// When anything came, comments too.
    heard: Arc<Mutex<Instant>>,
}

impl Events {
    pub(crate) fn new(path: String, mut reader: BufReader<UnixStream>, chunked: bool) -> Self {
        assert!(chunked, "{path}: an HTTP/1.1 stream without an end is sent in chunks");
        let socket = reader.get_ref().try_clone().expect("a socket can be shared");
        // A quiet stream is no error: the waiting side has the deadline.
        reader.get_ref().set_read_timeout(None).expect("a socket has a time limit to be lifted");
        let (sender, events) = channel();
        let heard = Arc::new(Mutex::new(now()));
        let last = Arc::clone(&heard);
        thread::spawn(move || {
            let mut parser = Parser::default();
            while let Ok(Some(chunk)) = read_chunk(&mut reader) {
                *last.lock().expect("nothing panics while it holds a time") = now();
                for event in parser.push(&chunk) {
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            }
        });
        Self { path, socket, events, heard }
    }

    /// For how long nothing has come, not even a comment.
    ///
    /// # Panics
    /// Never, unless the reading thread did.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.heard.lock().expect("nothing panics while it holds a time").elapsed()
    }

    /// The next event.
    ///
    /// # Errors
    /// None came in time, or the stream ended.
    pub fn next(&mut self, deadline: Deadline) -> Result<Event, Silence> {
        self.events.recv_timeout(deadline.left()).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::TimeOver,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }

    /// Reads on to the first event that fits.
    ///
    /// # Panics
    /// With the events seen meanwhile, when none fits before the deadline or the end.
    #[track_caller]
    pub fn wait_for(
        &mut self,
        what: &str,
        deadline: Deadline,
        mut fits: impl FnMut(&Event) -> bool,
    ) -> Event {
        let mut seen = Vec::new();
        loop {
            match self.next(deadline) {
                Ok(event) if fits(&event) => return event,
                Ok(event) => seen.push(brief(&event)),
                Err(silence) => {
                    let last = seen.len().saturating_sub(20);
                    panic!("{}: {silence:?} before {what}; seen: {:#?}", self.path, &seen[last..]);
                }
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Ends the reading thread; fails only when the server was first.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn brief(event: &Event) -> String {
    let data = event.data.to_string();
    format!("{} {}", event.name, data.chars().take(300).collect::<String>())
}

/// Turns bytes into events (HTML Standard §9.2.6).
#[derive(Default)]
struct Parser {
    rest: Vec<u8>,
    id: Option<String>,
    name: String,
    data: String,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + length]).into_owned();
            begin += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.rest.drain(..begin);
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let data = serde_json::from_str(&data).unwrap_or(Value::String(data));
            // Without data there is no event: a comment, or an id alone.
            return (data != "").then(|| Event { id: self.id.clone(), name, data, at: now() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // A comment, or `retry`, which a test does not obey.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_across_pieces_and_comments() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b": hello\n\nid: 1.2\nevent: out"), []);
        let events = parser.push(b"put\ndata: {\"a\":\r\ndata: 1}\r\n\r\nevent: end\ndata: {}\n\n");
        let found: Vec<_> =
            events.iter().map(|e| (e.id.as_deref(), e.name.as_str(), e.data.to_string())).collect();
        assert_eq!(found, [(Some("1.2"), "output", "{\"a\":1}".into()), (Some("1.2"), "end", "{}".into())]);
    }
}
