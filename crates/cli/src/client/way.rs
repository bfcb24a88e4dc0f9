//! Where a daemon is reached: by its Unix socket, or by its address over TCP with a token.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::CallError;

/// Longest wait for a connection over TCP: a machine that is there answers in a round trip.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Text that can stand in a header of a request.
    ///
    /// # Errors
    /// What is wrong with it, without the text itself.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err("it holds a character that no token has".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Where a daemon is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// By its Unix socket.
    Socket(PathBuf),
    /// Over TCP.
    Tcp {
        /// `HOST:PORT`.
        authority: String,
        /// What its listener wants to see.
        token: Option<Secret>,
    },
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { authority, .. } => write!(f, "http://{authority}"),
        }
    }
}

impl From<&Path> for Way {
    fn from(socket: &Path) -> Self {
        Self::Socket(socket.to_owned())
    }
}

impl Way {
    /// A daemon behind `http://HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn url(text: &str, token: Option<Secret>) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("https://") {
            return Err(format!(
                "{text}: Outlive speaks no TLS itself; name the http:// address, or a tunnel's"
            ));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let wrong = || format!("{text:?} is no URL of a daemon, for instance http://10.0.0.1:8787");
        let uri: hyper::Uri = format!("http://{authority}/").parse().map_err(|_| wrong())?;
        let is_plain = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
        let host = uri.host().filter(|host| is_plain && !host.is_empty()).ok_or_else(wrong)?;
        let port = match uri.port_u16() {
            Some(port) => port,
            // A port that does not fit is none to the parser.
            None if authority.len() > host.len() => return Err(wrong()),
            None => 80,
        };
        Ok(Self::Tcp { authority: format!("{host}:{port}"), token })
    }

    /// Whether it leads to the same place, whatever the token.
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { authority, .. }, Self::Tcp { authority: other, .. }) => authority == other,
            (one, other) => one == other,
        }
    }

    /// What stands in a request's `Host`.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "localhost",
            Self::Tcp { authority, .. } => authority,
        }
    }

    /// What stands in its `Authorization`.
    pub(super) fn authorization(&self) -> Option<String> {
        match self {
            Self::Socket(_) | Self::Tcp { token: None, .. } => None,
            Self::Tcp { token: Some(token), .. } => Some(format!("Bearer {}", token.reveal())),
        }
    }

    pub(super) async fn connect(&self) -> Result<Connection, CallError> {
        match self {
            Self::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Connection::over(TokioIo::new(stream)).await,
                Err(source) => Err(self.unreachable(source)),
            },
            Self::Tcp { authority, .. } => {
                let connecting = TcpStream::connect(authority);
                let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(source)) => return Err(self.unreachable(source)),
                    Err(_) => return Err(CallError::NotRunning { at: self.clone() }),
                };
                // Else a small request waits for the server's delayed acknowledgement.
                stream.set_nodelay(true).map_err(CallError::lost)?;
                Connection::over(TokioIo::new(stream)).await
            }
        }
    }

    fn unreachable(&self, source: io::Error) -> CallError {
        use io::ErrorKind as E;
        let is_nobody = match source.kind() {
            // A socket file without a listener is left behind by a daemon that was killed.
            E::NotFound | E::ConnectionRefused => true,
            // A machine that is down or out of reach is no daemon either.
            E::HostUnreachable | E::NetworkUnreachable | E::TimedOut | E::ConnectionReset => true,
            _ => false,
        };
        if is_nobody {
            CallError::NotRunning { at: self.clone() }
        } else {
            CallError::Connect { at: self.clone(), source }
        }
    }
}

/// A connection with the task that drives it; dropping it closes both.
pub(super) struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    async fn over<S>(stream: TokioIo<S>) -> Result<Self, CallError>
    where
        TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(stream).await.map_err(CallError::lost)?;
        let mut driver = JoinSet::new();
        // What breaks a connection is told to the call that waits on it.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self { sender, _driver: driver })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Result<String, String> {
        Way::url(text, None).map(|way| way.host().to_owned())
    }

    #[test]
    fn a_url_names_a_host_and_a_port() {
        assert_eq!(authority("http://10.0.0.1:8787/").as_deref(), Ok("10.0.0.1:8787"));
        assert_eq!(authority(" a.example:1 ").as_deref(), Ok("a.example:1"));
        assert_eq!(authority("http://a").as_deref(), Ok("a:80"));
        assert_eq!(authority("[::1]:8787").as_deref(), Ok("[::1]:8787"));
        for wrong in ["", "http://", "http://a/b", "http://u@a:1", "a b", "http://a:99999", "http://a?x"] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
        assert!(authority("https://a").expect_err("no TLS").contains("TLS"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Secret::new(" abc\n").expect("a token");
        let way = Way::url("http://a:1", Some(token)).expect("a way");
        assert_eq!(way.authorization().as_deref(), Some("Bearer abc"));
        assert!(!format!("{way:?} {way}").contains("abc"));
        for wrong in ["", " ", "a b", "a\u{7f}", "ä"] {
            let why = Secret::new(wrong).expect_err(wrong);
            assert!(wrong.trim().is_empty() || !why.contains(wrong), "{why}");
        }
    }
}
