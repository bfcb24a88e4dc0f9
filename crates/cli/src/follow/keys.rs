//! Keys that somebody presses at a screen: they come without Enter and are not shown. Dropping it puts the terminal back.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::net::unix::pipe::Receiver;

use super::ask::{is_foreground, open};

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// Leave.
    Leave,
    /// Up by one.
    Up,
    /// Down by one.
    Down,
    /// Up by a screen.
    PageUp,
    /// Down by a screen.
    PageDown,
    /// To the beginning.
    First,
    /// To the end, and along with what happens.
    Last,
}

/// What terminals send: xterm's sequences (ECMA-48 CSI, and SS3 in application mode), and letters as pagers have them.
const SEQUENCES: [(&[u8], Key); 20] = [
    (b"q", Key::Leave),
    (b"Q", Key::Leave),
    (b"\x04", Key::Leave),
    (b"\x1b[A", Key::Up),
    (b"\x1bOA", Key::Up),
    (b"k", Key::Up),
    (b"\x1b[B", Key::Down),
    (b"\x1bOB", Key::Down),
    (b"j", Key::Down),
    (b"\x1b[5~", Key::PageUp),
    (b"b", Key::PageUp),
    (b"\x1b[6~", Key::PageDown),
    (b" ", Key::PageDown),
    (b"\x1b[H", Key::First),
    (b"\x1bOH", Key::First),
    (b"\x1b[1~", Key::First),
    (b"g", Key::First),
    (b"\x1b[F", Key::Last),
    (b"\x1bOF", Key::Last),
    (b"G", Key::Last),
];

/// The keys of the terminal.
pub struct Keys {
    terminal: Receiver,
    before: Termios,
}

impl Keys {
    /// Takes them. `None` where there is no terminal, or another job has it.
    pub fn new() -> Option<Self> {
        let file = open().ok().filter(is_foreground)?;
        let before = tcgetattr(&file).ok()?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&file, OptionalActions::Now, &modes).ok()?;
        // No pipe, but as good: a descriptor that does not block and can be waited for.
        let terminal = Receiver::from_file_unchecked(file).ok()?;
        Some(Self { terminal, before })
    }

    /// What is pressed next; a terminal that is gone means to leave. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Key> {
        loop {
            let mut buffer = [0; 256];
            if self.terminal.readable().await.is_err() {
                return vec![Key::Leave];
            }
            match self.terminal.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) | Ok(0) => return vec![Key::Leave],
                Ok(count) => return meant(&buffer[..count]),
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that is gone needs no putting back.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// What bytes from a terminal mean. Sequences that mean nothing here are skipped whole.
fn meant(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let known = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence));
        let length = match known {
            Some((sequence, key)) => {
                keys.push(*key);
                sequence.len()
            }
            // The last byte of a sequence is the first between @ and ~ (ECMA-48 §5.4).
            None if bytes.starts_with(b"\x1b[") => bytes[2..]
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte))
                .map_or(bytes.len(), |at| at + 3),
            None => 1,
        };
        bytes = &bytes[length..];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_and_foreign_sequences_skipped() {
        assert_eq!(meant(b"\x1b[A\x1b[5~q"), [Key::Up, Key::PageUp, Key::Leave]);
        assert_eq!(meant(b"x\x1b[200~\x1b[1;5Aj"), [Key::Down]);
        assert_eq!(meant(b"\x1b["), []);
        assert_eq!(meant(b"\x1b"), []);
    }
}
