//! A small blocking HTTP/1.1 client over a Unix socket.
//!
//! Written for tests: it sees what is on the wire, and can send what a well-behaved client never would.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::clock::PATIENCE;
use crate::events::Events;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body, decoded from chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower-case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// With the body, when it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("no JSON ({error}) in an answer {}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

/// The API of one daemon.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    /// The API behind this socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(&self) -> std::io::Result<Connection> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// Nobody listens, or the connection broke.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Response> {
        self.connect()?.request(method, path, body)
    }

    /// One request that must be answered, with whatever status.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.try_request(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request that must succeed; its JSON answer (null when the body is empty).
    #[track_caller]
    fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let response = self.request(method, path, body);
        let text = String::from_utf8_lossy(&response.body);
        assert!((200..300).contains(&response.status), "{method} {path}: {} {text}", response.status);
        if response.body.is_empty() { Value::Null } else { response.json() }
    }

    /// GET that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.expect("GET", path, None)
    }

    /// POST that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.expect("POST", path, Some(body))
    }

    /// DELETE that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Value {
        self.expect("DELETE", path, None)
    }

    /// POST that must be refused; the problem (RFC 9457).
    ///
    /// # Panics
    /// When it is not refused, or not with a problem that says what to do.
    #[track_caller]
    pub fn refused(&self, path: &str, body: &Value) -> Value {
        let response = self.request("POST", path, Some(body));
        let text = String::from_utf8_lossy(&response.body);
        assert!(response.status >= 400, "POST {path}: {} {text}", response.status);
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{text}");
        let problem = response.json();
        assert_eq!(problem["status"], response.status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        problem
    }

    /// Attaches to a stream of events; `last_id` is sent as `Last-Event-ID`.
    ///
    /// # Panics
    /// When there is no answer, or another one than a stream.
    #[must_use]
    #[track_caller]
    pub fn events(&self, path: &str, last_id: Option<&str>) -> Events {
        self.try_events(path, last_id, PATIENCE).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// As [`Self::events`], and gives up when nobody answers in time.
    ///
    /// # Errors
    /// Nobody listens or answers, or the answer is no stream.
    pub fn try_events(
        &self,
        path: &str,
        last_id: Option<&str>,
        patience: Duration,
    ) -> std::io::Result<Events> {
        let mut connection = self.connect()?;
        connection.set_read_timeout(patience)?;
        let resume = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{resume}\r\n");
        connection.send(head.as_bytes())?;
        let (status, headers) = connection.head()?;
        if status != 200 {
            let body = connection.body(&headers).unwrap_or_default();
            return Err(broken(&format!("{status} {}", String::from_utf8_lossy(&body))));
        }
        Ok(Events::new(path.to_owned(), connection.reader, is_chunked(&headers)))
    }
}

/// One connection, kept alive between requests.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// One request and its answer.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP.
    pub fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Response> {
        let body = body.map(Value::to_string);
        let length = body.as_ref().map_or(0, String::len);
        let content = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{content}Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body.unwrap_or_default().as_bytes()].concat())?;
        self.response()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP.
    pub fn response(&mut self) -> std::io::Result<Response> {
        let (status, headers) = self.head()?;
        let body = self.body(&headers)?;
        Ok(Response { status, headers, body })
    }

    /// Reads the answer to an upgrade and gives what follows it.
    ///
    /// # Errors
    /// The connection broke, or the server answered something else.
    pub fn upgraded(mut self) -> std::io::Result<BufReader<UnixStream>> {
        let (status, headers) = self.head()?;
        if status != 101 {
            let body = self.body(&headers)?;
            return Err(broken(&format!("{status} {}", String::from_utf8_lossy(&body))));
        }
        Ok(self.reader)
    }

    /// Limits how long a read may take.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_read_timeout(&self, timeout: Duration) -> std::io::Result<()> {
        self.reader.get_ref().set_read_timeout(Some(timeout))
    }

    fn head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| broken(&format!("no HTTP status in {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| broken(&format!("no header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, headers: &[(String, String)]) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if is_chunked(headers) {
            while let Some(chunk) = read_chunk(&mut self.reader)? {
                body.extend(chunk);
            }
            return Ok(body);
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        body.resize(length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0), 0);
        self.reader.read_exact(&mut body)?;
        Ok(body)
    }

    fn line(&mut self) -> std::io::Result<String> {
        read_line(&mut self.reader)
    }
}

fn is_chunked(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(name, value)| name == "transfer-encoding" && value.contains("chunked"))
}

/// One chunk of a chunked body; `None` after the last (RFC 9112 §7.1).
pub(crate) fn read_chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let line = read_line(reader)?;
    let size = line.split(';').next().unwrap_or_default().trim();
    let size = usize::from_str_radix(size, 16).map_err(|_| broken(&format!("no chunk size: {line:?}")))?;
    let mut chunk = vec![0; size];
    reader.read_exact(&mut chunk)?;
    read_line(reader)?;
    Ok((size > 0).then_some(chunk))
}

fn read_line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}
