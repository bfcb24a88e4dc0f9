//! Connection files, ports and socket paths.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use outlive_jupyter::connection::{AllocateError, ConnectionInfo, FileError};

#[test]
fn the_file_is_private_whole_and_what_jupyter_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connection.json");
    let (info, _ports) = ConnectionInfo::on_tcp("python3").unwrap();
    info.write(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ConnectionInfo::read(&path).unwrap(), info);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["transport"], "tcp");
    assert_eq!(json["ip"], "127.0.0.1");
    assert_eq!(json["signature_scheme"], "hmac-sha256");
    assert_eq!(json["kernel_name"], "python3");
    assert_eq!(json["hb_port"], info.hb_port);
    assert_eq!(json["key"].as_str().unwrap().len(), 36);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    assert!(!format!("{info:?}").contains(&info.key), "the key is not shown");
}

#[test]
fn what_cannot_be_written_or_read_is_named() {
    let error = ConnectionInfo::on_tcp("x").unwrap().0.write(Path::new("/nowhere/c.json")).unwrap_err();
    assert!(matches!(error, FileError::Write { .. }));
    assert!(error.to_string().contains("/nowhere/c.json"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(ConnectionInfo::read(file.path()), Err(FileError::Parse { .. })));
}

/// A kernel can listen on a reserved port; nobody is given it by chance meanwhile.
#[test]
fn a_reserved_port_is_for_the_kernel_alone() {
    let (info, ports) = ConnectionInfo::on_tcp("x").unwrap();
    let mut mine = [info.shell_port, info.iopub_port, info.stdin_port, info.control_port, info.hb_port];
    for port in mine {
        // std sets SO_REUSEADDR, as ZeroMQ does.
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
    let others: Vec<_> = (0..200).map(|_| ConnectionInfo::on_tcp("y").unwrap()).collect();
    mine.sort_unstable();
    assert!(mine.windows(2).all(|pair| pair[0] != pair[1]));
    for (other, _) in &others {
        assert!(!mine.contains(&other.shell_port) && !mine.contains(&other.hb_port));
    }
    drop(ports);
}

#[test]
fn a_socket_path_that_is_too_long_says_what_to_shorten() {
    let directory = Path::new("/tmp").join("d".repeat(120));
    let error = ConnectionInfo::in_directory(&directory, "x").unwrap_err();
    assert!(matches!(error, AllocateError::PathTooLong { .. }));
    assert!(error.to_string().contains("use a shorter state directory (now /tmp/ddd"), "{error}");
    let fits = Path::new("/tmp").join("d".repeat(98));
    let info = ConnectionInfo::in_directory(&fits, "x").unwrap();
    assert_eq!(info.socket_path(info.hb_port).as_os_str().len(), 107);
    assert_eq!(info.endpoint(info.shell_port), format!("ipc://{}/k-1", fits.display()));
}
