//! Binding. The caller holds the state directory's lock, so nobody else of this state directory binds meanwhile.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::limits::SOCKET_PATH_BYTES_MAX;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, UnixListener};

use crate::door::TcpPolicy;

/// Why an address cannot be listened on. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path does not fit into `sockaddr_un`.
    #[error(
        "the socket path {path} has {len} bytes, and the system takes {SOCKET_PATH_BYTES_MAX}; \
         set OUTLIVE_RUNTIME_DIR to a directory with a shorter path"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// Somebody listens there.
    #[error(
        "{} already listens on {path}; stop it, or set OUTLIVE_RUNTIME_DIR to another directory",
        .holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    SocketInUse {
        /// The socket.
        path: PathBuf,
        /// The process that listens, where the system says it.
        holder: Option<i32>,
    },
    /// Something else than a socket is in the way.
    #[error("{path} exists and is no socket; move it away")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "the directory {path} has mode {mode:o} and owner {owner}; make it yours and run `chmod 700 {path}`"
    )]
    DirectoryNotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// The TCP port is taken.
    #[error("another process listens on {address}; stop it, or choose another port (0 takes any free one)")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system said no.
    #[error("cannot {doing} {what}; look at its owner, its mode and the free space")]
    Io {
        /// What was tried, for instance `bind`.
        doing: &'static str,
        /// The path or address.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A Unix socket that is listened on. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub struct BoundUnix {
    pub(super) listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl BoundUnix {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BoundUnix {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // Nothing depends on it: a socket that nobody listens on is removed by the next daemon.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A TCP address that is listened on.
#[derive(Debug)]
pub struct BoundTcp {
    pub(super) listener: TcpListener,
    pub(super) policy: Arc<TcpPolicy>,
    address: SocketAddr,
}

impl BoundTcp {
    /// The address, with the port that was taken when 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens on a Unix socket: mode 0600 in a directory 0700, which is made when it is missing. A socket that nobody
/// listens on is removed first. Call it within a tokio runtime, holding the state directory's lock.
///
/// # Errors
/// [`BindError`]: each says what to do.
pub fn bind_unix(path: &Path) -> Result<BoundUnix, BindError> {
    let len = path.as_os_str().as_bytes().len();
    if len > SOCKET_PATH_BYTES_MAX {
        return Err(BindError::PathTooLong { path: path.into(), len });
    }
    make_private_directory(path)?;
    remove_stale(path)?;
    let failed = |doing| move |source| BindError::Io { doing, what: path.display().to_string(), source };
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    let file = identity(path).map_err(failed("look at"))?;
    let bound = BoundUnix { listener, path: path.into(), file };
    // Until here the directory's mode has kept others out.
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("set the mode of"))?;
    Ok(bound)
}

/// Listens on a TCP address.
///
/// # Errors
/// [`BindError::AddressInUse`], [`BindError::Io`].
pub async fn bind_tcp(address: SocketAddr, policy: TcpPolicy) -> Result<BoundTcp, BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { address },
        _ => BindError::Io { doing: "listen on", what: address.to_string(), source },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "listening beyond this machine without TLS: token and outputs travel in the clear");
    }
    Ok(BoundTcp { listener, policy: Arc::new(policy), address })
}

fn make_private_directory(socket: &Path) -> Result<(), BindError> {
    let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let failed = |doing| move |source| BindError::Io { doing, what: folder.display().to_string(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make the directory"))?;
    let about = std::fs::metadata(folder).map_err(failed("look at"))?;
    let (mode, owner) = (about.mode() & 0o777, about.uid());
    if mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
        return Err(BindError::DirectoryNotPrivate { path: folder.into(), mode, owner });
    }
    Ok(())
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |doing| move |source| BindError::Io { doing, what: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    let address = SocketAddrUnix::new(path).map_err(|errno| failed("name")(errno.into()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| failed("make a socket to probe")(errno.into()))?;
    match rustix::net::connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(failed("remove the stale socket")),
        Err(Errno::NOENT) => Ok(()),
        // AGAIN: its queue is full, so somebody listens, if badly.
        Ok(()) | Err(Errno::AGAIN) => {
            let holder = rustix::net::sockopt::socket_peercred(&probe).ok();
            let holder = holder.map(|credentials| credentials.pid.as_raw_nonzero().get());
            Err(BindError::SocketInUse { path: path.into(), holder })
        }
        Err(errno) => Err(failed("probe")(errno.into())),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let about = std::fs::symlink_metadata(path)?;
    Ok((about.dev(), about.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::token::Token;

    /// As a state directory is: nobody else may enter.
    fn private_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        folder
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_owner() {
        let folder = private_folder();
        let path = folder.path().join("run/daemon.sock");
        let bound = bind_unix(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(bound);
        assert!(!path.exists());
    }

    // D5
    #[tokio::test]
    async fn a_stale_socket_is_removed_and_a_live_one_names_its_holder() {
        let folder = private_folder();
        let path = folder.path().join("daemon.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind_unix(&path).expect("nobody listens on it");
        let error = bind_unix(&path).unwrap_err();
        let own = std::process::id().cast_signed();
        assert!(matches!(&error, BindError::SocketInUse { holder, .. } if *holder == Some(own)), "{error}");
        assert!(error.to_string().contains(&format!("process {own}")), "{error}");
        assert!(path.exists(), "the loser touches nothing");
        drop(bound);
    }

    #[tokio::test]
    async fn a_successor_keeps_its_socket() {
        let folder = private_folder();
        let path = folder.path().join("daemon.sock");
        let first = bind_unix(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = bind_unix(&path).unwrap();
        drop(first);
        assert!(path.exists(), "the file is the second one's");
        drop(second);
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_kept() {
        let folder = private_folder();
        let path = folder.path().join("daemon.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind_unix(&path), Err(BindError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_long_path_says_what_to_set() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let error = bind_unix(&path).unwrap_err().to_string();
        assert!(error.contains("107") && error.contains("OUTLIVE_RUNTIME_DIR"), "{error}");
    }

    // B6
    #[tokio::test]
    async fn a_directory_that_others_can_write_is_refused() {
        let folder = private_folder();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let error = bind_unix(&folder.path().join("daemon.sock")).unwrap_err();
        assert!(matches!(error, BindError::DirectoryNotPrivate { mode: 0o755, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let policy = || TcpPolicy {
            token: Token::new("0123456789abcdef").unwrap(),
            hosts: Vec::new(),
            origins: Vec::new(),
        };
        let bound = bind_tcp("127.0.0.1:0".parse().unwrap(), policy()).await.unwrap();
        let error = bind_tcp(bound.address(), policy()).await.unwrap_err();
        assert!(
            matches!(error, BindError::AddressInUse { address } if address == bound.address()),
            "{error}"
        );
    }
}
