//! Where a kernel is reached: the connection file, ports and socket paths.
//!
//! Ports: the kernel binds the ports itself, up to seconds after they were chosen. [`PortReservation`] keeps them
//! until then: a bound socket that does not listen, with `SO_REUSEADDR`, keeps every other program from getting the
//! port, while a kernel, whose ZeroMQ sets `SO_REUSEADDR` as well, can still listen on it.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use outlive_core::limits::SOCKET_PATH_BYTES_MAX;
use outlive_core::runtime::spec::Transport;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{Channel, KeyError, SIGNATURE_SCHEME, SigningKey};

/// The content of a connection file (jupyter_client documentation, "Connection files"). Holds the key: its `Debug`
/// does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// TCP or Unix sockets.
    pub transport: Transport,
    /// The address; for `ipc` the prefix of the paths.
    pub ip: String,
    /// Of the shell channel; for `ipc` the suffix of the path, as for the others.
    pub shell_port: u16,
    /// Of iopub.
    pub iopub_port: u16,
    /// Of stdin.
    pub stdin_port: u16,
    /// Of control.
    pub control_port: u16,
    /// Of the heartbeat.
    pub hb_port: u16,
    /// Signs the messages.
    pub key: String,
    /// How.
    pub signature_scheme: String,
    /// The kernelspec's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_name: String,
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo")
            .field("transport", &self.transport)
            .field("ip", &self.ip)
            .field("shell_port", &self.shell_port)
            .field("kernel_name", &self.kernel_name)
            .finish_non_exhaustive()
    }
}

/// A place for the kernel's sockets could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// No free port, or no socket left.
    #[error(
        "no port on 127.0.0.1 could be reserved for the kernel: check the limit of open files (`ulimit -n`)"
    )]
    NoPort(#[source] io::Error),
    /// A Unix socket's path may have 107 bytes.
    #[error(
        "the socket path {path} would have {bytes} bytes, {SOCKET_PATH_BYTES_MAX} are possible: \
         use a shorter state directory (now {directory}), or transport tcp"
    )]
    PathTooLong {
        /// The longest of the five.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The part that can be shortened.
        directory: PathBuf,
    },
    /// A path with other bytes than UTF-8 cannot stand in a connection file, which is JSON.
    #[error("the directory {0} is not UTF-8, so it cannot be named in a connection file: use another one")]
    PathNotUtf8(PathBuf),
}

/// A connection file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Writing failed; no file is left.
    #[error("cannot write the connection file {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read the connection file {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a connection file.
    #[error("{path} is not a connection file")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
}

/// Holds a kernel's five ports until it listens. Drop it when the kernel is connected or dead.
#[derive(Debug)]
pub struct PortReservation {
    _sockets: Vec<OwnedFd>,
}

impl ConnectionInfo {
    /// Chooses five free ports on loopback and a key.
    ///
    /// # Errors
    /// When the machine has no port or no file descriptor left.
    pub fn on_tcp(kernel_name: &str) -> Result<(Self, PortReservation), AllocateError> {
        let mut ports = [0; 5];
        let mut sockets = Vec::with_capacity(ports.len());
        for port in &mut ports {
            let (socket, bound) = reserve_port().map_err(AllocateError::NoPort)?;
            *port = bound;
            sockets.push(socket);
        }
        let info = Self::new(Transport::Tcp, Ipv4Addr::LOCALHOST.to_string(), ports, kernel_name);
        Ok((info, PortReservation { _sockets: sockets }))
    }

    /// Chooses socket paths in `directory`, which is the process's own and private.
    ///
    /// # Errors
    /// When a path would be too long for a Unix socket, or is not UTF-8.
    pub fn in_directory(directory: &Path, kernel_name: &str) -> Result<Self, AllocateError> {
        let prefix = directory.join("k");
        let ip = prefix.to_str().ok_or_else(|| AllocateError::PathNotUtf8(directory.to_owned()))?;
        let info = Self::new(Transport::Ipc, ip.to_owned(), [1, 2, 3, 4, 5], kernel_name);
        let path = info.socket_path(info.hb_port);
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(AllocateError::PathTooLong { path, bytes, directory: directory.to_owned() });
        }
        Ok(info)
    }

    fn new(transport: Transport, ip: String, ports: [u16; 5], kernel_name: &str) -> Self {
        let [shell_port, iopub_port, stdin_port, control_port, hb_port] = ports;
        Self {
            transport,
            ip,
            shell_port,
            iopub_port,
            stdin_port,
            control_port,
            hb_port,
            key: Uuid::new_v4().to_string(),
            signature_scheme: SIGNATURE_SCHEME.to_owned(),
            kernel_name: kernel_name.to_owned(),
        }
    }

    /// Writes the file, mode 0600, whole or not at all. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is left.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let write = || -> io::Result<()> {
            let directory = path.parent().ok_or(io::ErrorKind::NotADirectory)?;
            // A temporary file has mode 0600 from the start.
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.flush()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|source| FileError::Write { path: path.to_owned(), source })
    }

    /// Reads a file that this or another program wrote. Blocks.
    ///
    /// # Errors
    /// When it cannot be read or is no connection file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes =
            std::fs::read(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| FileError::Parse { path: path.to_owned(), source })
    }

    /// The key, ready for use.
    ///
    /// # Errors
    /// When the scheme is not supported.
    pub fn signing_key(&self) -> Result<SigningKey, KeyError> {
        SigningKey::new(&self.key, &self.signature_scheme)
    }

    /// The port of a channel.
    #[must_use]
    pub fn port(&self, channel: Channel) -> u16 {
        match channel {
            Channel::Shell => self.shell_port,
            Channel::Iopub => self.iopub_port,
            Channel::Stdin => self.stdin_port,
            Channel::Control => self.control_port,
        }
    }

    /// The ZeroMQ endpoint of a port, as jupyter_client spells it.
    #[must_use]
    pub fn endpoint(&self, port: u16) -> String {
        match self.transport {
            Transport::Tcp => format!("tcp://{}:{port}", self.ip),
            Transport::Ipc => format!("ipc://{}-{port}", self.ip),
        }
    }

    /// The path of the Unix socket of a port (transport `ipc`).
    #[must_use]
    pub fn socket_path(&self, port: u16) -> PathBuf {
        PathBuf::from(format!("{}-{port}", self.ip))
    }
}

fn reserve_port() -> io::Result<(OwnedFd, u16)> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, address.port()))
}
