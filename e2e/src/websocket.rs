//! A small blocking WebSocket client (RFC 6455) over a Unix socket, for tests.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use crate::clock::Deadline;
use crate::events::Silence;
use crate::http::Api;

/// What came over a WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A binary message.
    Binary(Vec<u8>),
    /// A text message.
    Text(String),
    /// The server closes, with this code.
    Close(u16),
}

/// A connection that is open. Dropped, it is cut as by a broken network: without a word.
#[derive(Debug)]
pub struct WebSocket {
    socket: UnixStream,
    frames: Receiver<Frame>,
}

impl WebSocket {
    /// Opens one.
    ///
    /// # Panics
    /// With the answer, when the server refuses.
    #[must_use]
    #[track_caller]
    pub fn open(api: &Api, path: &str) -> Self {
        let mut connection = api.connect().unwrap_or_else(|error| panic!("GET {path}: {error}"));
        // The key is any 16 bytes in base64; what it is good for concerns caches, and there are none here.
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let answer = connection.send(head.as_bytes()).and_then(|()| connection.upgraded());
        let reader = answer.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let socket = reader.get_ref().try_clone().expect("a socket can be shared");
        reader.get_ref().set_read_timeout(None).expect("a socket has a time limit to be lifted");
        let answers = socket.try_clone().expect("a socket can be shared");
        let (sender, frames) = channel();
        thread::spawn(move || read_all(reader, answers, |frame| sender.send(frame).is_ok()));
        Self { socket, frames }
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(&frame(0x2, bytes))
    }

    /// The next message.
    ///
    /// # Errors
    /// None came in time, or the connection is gone.
    pub fn next(&mut self, deadline: Deadline) -> Result<Frame, Silence> {
        self.frames.recv_timeout(deadline.left()).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::TimeOver,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        // Ends the reading thread; fails only when the server was first.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// One final frame, masked with zeros as a client's must be masked (§5.3).
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Reads messages until the connection ends or nobody wants them; pings are answered.
fn read_all(mut reader: BufReader<UnixStream>, mut answers: UnixStream, mut take: impl FnMut(Frame) -> bool) {
    let (mut kind, mut message) = (0, Vec::new());
    while let Ok((is_final, opcode, payload)) = read_frame(&mut reader) {
        let frame = match opcode {
            0x9 => {
                if answers.write_all(&frame(0xA, &payload)).is_err() {
                    return;
                }
                continue;
            }
            0xA => continue,
            0x8 => Frame::Close(payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]))),
            _ => {
                if opcode != 0 {
                    kind = opcode;
                }
                message.extend(payload);
                if !is_final {
                    continue;
                }
                let whole = std::mem::take(&mut message);
                match kind {
                    0x1 => Frame::Text(String::from_utf8_lossy(&whole).into_owned()),
                    _ => Frame::Binary(whole),
                }
            }
        };
        if !take(frame) {
            return;
        }
    }
}

fn read_frame(reader: &mut impl Read) -> std::io::Result<(bool, u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length)?;
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            reader.read_exact(&mut length)?;
            u64::from_be_bytes(length)
        }
        length => u64::from(length),
    };
    let mut payload = Vec::new();
    reader.take(length).read_to_end(&mut payload)?;
    if payload.len() as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok((head[0] & 0x80 != 0, head[0] & 0x0F, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_read_as_they_were_written() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut bytes = frame(0x2, &vec![7; length]);
            // As a server would have sent it: without the mask's bit and bytes.
            bytes[1] &= 0x7F;
            let mask = bytes.len() - length - 4;
            bytes.drain(mask..mask + 4);
            assert_eq!(read_frame(&mut &*bytes).unwrap(), (true, 2, vec![7; length]));
        }
    }
}
