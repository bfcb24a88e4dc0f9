//! Error numbers of the system with their names and meanings, as errno(3) has them.

/// A number from a program's text, of Linux or macOS: `54 (ECONNRESET, …)`. The numbers of both do not meet among
/// those that a socket gives, but for the few that mean the same.
pub(super) fn named(number: &str) -> String {
    match number.parse().ok().and_then(of_socket) {
        Some(meaning) => format!("{number} ({meaning})"),
        None => number.to_owned(),
    }
}

fn of_socket(number: u32) -> Option<&'static str> {
    Some(match number {
        1 => "EPERM, not permitted",
        2 => "ENOENT, no such file or directory",
        4 => "EINTR, interrupted by a signal",
        5 => "EIO, an input or output error",
        9 => "EBADF, the descriptor is closed",
        12 => "ENOMEM, cannot allocate memory",
        13 => "EACCES, permission denied",
        14 => "EFAULT, a buffer at an address that is not the program's own",
        22 => "EINVAL, an argument is not valid",
        23 => "ENFILE, too many open files in the system",
        24 => "EMFILE, too many open files",
        32 => "EPIPE, the other side has closed",
        11 | 35 => "EAGAIN, nothing there within its time limit",
        38 | 88 => "ENOTSOCK, not a socket",
        48 | 98 => "EADDRINUSE, the address is in use",
        49 | 99 => "EADDRNOTAVAIL, this machine does not have that address",
        50 | 100 => "ENETDOWN, the network is down",
        51 | 101 => "ENETUNREACH, no way to that network",
        53 | 103 => "ECONNABORTED, the connection was given up",
        54 | 104 => "ECONNRESET, the other side has reset the connection",
        55 | 105 => "ENOBUFS, no room for what is sent",
        57 | 107 => "ENOTCONN, not connected",
        58 | 108 => "ESHUTDOWN, closed for sending",
        60 | 110 => "ETIMEDOUT, no answer in time",
        61 | 111 => "ECONNREFUSED, nobody listens there",
        64 | 112 => "EHOSTDOWN, that machine is down",
        65 | 113 => "EHOSTUNREACH, no way to that machine",
        96 => "EPFNOSUPPORT, that kind of network is not supported",
        _ => return None,
    })
}

/// An error number with its name and meaning, of the machine that this runs on.
pub(super) fn of_system_call(errno: i32) -> String {
    let known = match errno {
        1 => "EPERM, not permitted",
        2 => "ENOENT, no such file or directory",
        7 => "E2BIG, argument list too long",
        8 => "ENOEXEC, not in a format that this machine executes",
        11 => "EAGAIN, try again: a limit was reached",
        12 => "ENOMEM, cannot allocate memory",
        13 => "EACCES, permission denied",
        20 => "ENOTDIR, not a directory",
        23 => "ENFILE, too many open files in the system",
        24 => "EMFILE, too many open files",
        26 => "ETXTBSY, the file is being written",
        28 => "ENOSPC, no space left on device",
        30 => "EROFS, read-only file system",
        36 => "ENAMETOOLONG, file name too long",
        40 => "ELOOP, too many symbolic links",
        98 => "EADDRINUSE, address already in use",
        122 => "EDQUOT, disk quota exceeded",
        _ => return format!("errno {errno}"),
    };
    format!("errno {errno} ({known})")
}
