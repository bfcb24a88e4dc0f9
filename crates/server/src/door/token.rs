//! The token that opens a TCP address: made at first start, kept in a private file, compared in constant time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes in a token. 256 bits are beyond guessing.
const TOKEN_BYTES: usize = 32;
/// Shortest token that is taken from a file. People may write their own; a short one could be guessed.
const TOKEN_TEXT_MIN: usize = 16;
/// Longest token file that is read, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// A token to compare with. It holds a keyed digest, not the token, so it cannot be printed or leaked by mistake.
#[derive(Clone)]
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("cannot {doing} the token file {path}; look at its directory's owner, mode and free space")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The token file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it, so it is no secret.
    #[error(
        "the token file {path} has mode {mode:o} and owner {owner}; make it yours and run `chmod 600 {path}`, or delete it to get a new token"
    )]
    NotPrivate {
        /// The token file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// It holds no usable token.
    #[error(
        "the token file {path} must hold one line of {TOKEN_TEXT_MIN} or more printable characters; delete it to get a new token"
    )]
    Unusable {
        /// The token file.
        path: PathBuf,
    },
    /// A header cannot hold it.
    #[error(
        "the cluster's token holds characters that no HTTP header can hold; delete its row to get a new one"
    )]
    NoHeader,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers for a token")]
    NoRandom,
}

impl Token {
    /// Reads the token in `path`; makes the file (mode 0600) with a new one when there is none. The caller holds the
    /// state directory's lock.
    ///
    /// # Errors
    /// [`TokenError`]: each says what to do.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).expect("the flags of open(2) are an int");
        match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => Self::new(&read(path, file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::new(&create(path)?),
            Err(source) => Err(TokenError::Io { doing: "read", path: path.into(), source }),
        }
    }

    /// A token that compares with `text`.
    ///
    /// # Errors
    /// [`TokenError::NoRandom`].
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let key =
            hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| TokenError::NoRandom)?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { key, tag })
    }

    /// Whether `presented` is the token. Takes as long for a wrong one as for the right one: both are digested under
    /// a key that nobody knows, and ring compares the digests in constant time.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        hmac::verify(&self.key, presented, self.tag.as_ref()).is_ok()
    }
}

fn read(path: &Path, file: File) -> Result<String, TokenError> {
    let failed = |source| TokenError::Io { doing: "read", path: path.into(), source };
    let about = file.metadata().map_err(failed)?;
    let (mode, owner) = (about.mode() & 0o777, about.uid());
    if mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
        return Err(TokenError::NotPrivate { path: path.into(), mode, owner });
    }
    let mut text = String::new();
    file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let text = text.trim();
    if text.len() < TOKEN_TEXT_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Unusable { path: path.into() });
    }
    Ok(text.to_owned())
}

/// Written beside and renamed, so that a crash leaves no half of a token.
fn create(path: &Path) -> Result<String, TokenError> {
    let mut bytes = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::NoRandom)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let beside = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| TokenError::Io { doing: "write", path: path.into(), source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let made = Token::load_or_create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(text.trim().len(), 64);
        assert!(made.is(text.trim().as_bytes()));
        assert!(!made.is(&text.trim().as_bytes()[..63]));
        assert!(!made.is(b""));
        assert!(
            Token::load_or_create(&path).unwrap().is(text.trim().as_bytes()),
            "the same at the next start"
        );
    }

    // B6
    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "0123456789abcdef0123").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Token::load_or_create(&path).unwrap_err();
        assert!(matches!(error, TokenError::NotPrivate { mode: 0o644, .. }), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Token::load_or_create(&path).unwrap().is(b"0123456789abcdef0123"));
    }

    #[test]
    fn an_empty_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap());
        assert!(matches!(Token::load_or_create(&path), Err(TokenError::Unusable { .. })));
    }

    // B6
    #[test]
    fn a_linked_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(Token::load_or_create(&path), Err(TokenError::Io { doing: "read", .. })));
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token::new("0123456789abcdef0123").unwrap()), "Token(secret)");
    }
}
