//! Directories that are nobody else's business: 0700, ours, and never somebody else's.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use outlive_core::limits;

use crate::exit::Exit;
use crate::failure::Failure;

/// Makes a private directory, or checks the one that is there: a directory itself (no link that somebody could have
/// put into /tmp before us), ours, and closed to others.
pub fn private(directory: &Path, setting: &str) -> Result<(), Failure> {
    let wrong = |what: String| {
        let variable = format!("OUTLIVE_{}", setting.to_uppercase());
        Err(Failure::new(Exit::Usage, what).hint(format!("set {variable} to a directory of your own")))
    };
    let shown = directory.display();
    if let Some(parent) = directory.parent()
        && let Err(error) = fs::create_dir_all(parent)
    {
        return wrong(format!("the directory {} cannot be made: {error}", parent.display()));
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return wrong(format!("the directory {shown} cannot be made: {error}")),
    }
    let metadata = match fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) => return wrong(format!("{shown} cannot be looked at: {error}")),
    };
    if !metadata.is_dir() {
        return wrong(format!("{shown} is not a directory of its own"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return wrong(format!("{shown} belongs to another user (uid {})", metadata.uid()));
    }
    if metadata.mode() & 0o077 != 0
        && let Err(error) = fs::set_permissions(directory, Permissions::from_mode(0o700))
    {
        return wrong(format!("{shown} is open to others and cannot be closed: {error}"));
    }
    Ok(())
}

/// The folder of path claims, made private: one for all daemons of this user on this machine, whatever their settings and
/// their environment say, or two of them would write one notebook. Only a test has another.
pub fn claims() -> Result<PathBuf, Failure> {
    if let Some(folder) = std::env::var_os("OUTLIVE_CLAIMS_DIR").map(PathBuf::from) {
        private(&folder, "claims_dir")?;
        return Ok(folder);
    }
    // Not below XDG_RUNTIME_DIR, which a daemon of cron does not have, and which goes when its user logs out; nor below
    // TMPDIR.
    let place = PathBuf::from(format!("/tmp/outlive-{}", rustix::process::geteuid().as_raw()));
    private(&place, "claims_dir")?;
    Ok(place.join("claims"))
}

/// The address of a Unix socket has a fixed size, and the system would only say "invalid argument".
pub fn socket_fits(socket: &Path) -> Result<(), Failure> {
    let length = socket.as_os_str().len();
    if length <= limits::SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    let what = format!(
        "the path of the daemon's socket is too long: {} has {length} bytes, the system allows {}",
        socket.display(),
        limits::SOCKET_PATH_BYTES_MAX
    );
    Err(Failure::new(Exit::Usage, what).hint("set OUTLIVE_RUNTIME_DIR to a shorter path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_is_closed_to_others() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("a/b");
        private(&directory, "runtime_dir").expect("made");
        assert_eq!(fs::metadata(&directory).expect("there").mode() & 0o777, 0o700);
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("opened");
        private(&directory, "runtime_dir").expect("closed again");
        assert_eq!(fs::metadata(&directory).expect("there").mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let base = tempfile::tempdir().expect("a directory");
        let link = base.path().join("link");
        std::os::unix::fs::symlink(base.path(), &link).expect("linked");
        let failure = private(&link, "runtime_dir").expect_err("a link");
        assert!(failure.what.contains("not a directory of its own"), "{}", failure.what);
        assert!(failure.hint.expect("a hint").contains("OUTLIVE_RUNTIME_DIR"));
    }

    #[test]
    fn a_long_socket_path_is_explained() {
        let long = Path::new("/tmp").join("x".repeat(120)).join("outlive.sock");
        let failure = socket_fits(&long).expect_err("too long");
        assert!(failure.what.contains("138 bytes") && failure.what.contains("107"), "{}", failure.what);
        socket_fits(Path::new("/tmp/outlive-0/outlive.sock")).expect("fits");
    }
}
