//! A blob's bytes, streamed from its file.

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use outlive_core::limits::RUNNER_BYTES_MAX;
use outlive_protocol::http::Problem;
use rustix::fs::OFlags;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, Take};

use crate::problem;

/// How much is read at once, in bytes: large enough that the hop to the blocking pool does not count.
const READ_BYTES: usize = 256 << 10;

/// The answer with the content of `path`, which the node has chosen by a checked name. A link, or anything that is no
/// plain file, is no blob: it could lead out of the session's folder.
pub(super) async fn answer(sha256: &str, path: &Path) -> Result<Response<Body>, Problem> {
    let (file, length) = open(sha256, path).await?;
    // Not more than was announced, even if the file grows; if it shrinks, the connection is cut, which a client sees.
    let content = stream::try_unfold(file.take(length), next_piece);
    let mut response = Response::new(Body::from_stream(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, immutable, max-age=31536000"));
    let etag = HeaderValue::from_str(&format!("\"{sha256}\"")).expect("hexadecimal digits");
    headers.insert(ETAG, etag);
    Ok(response)
}

/// The content of a blob that a runner's chunk is in: not longer than one can be.
pub(crate) async fn read(sha256: &str, path: &Path) -> Result<Vec<u8>, Problem> {
    let (file, length) = open(sha256, path).await?;
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(RUNNER_BYTES_MAX));
    let read = file.take(RUNNER_BYTES_MAX as u64).read_to_end(&mut content).await;
    read.map_err(|error| problem::blob_unreadable(sha256, &error))?;
    Ok(content)
}

async fn open(sha256: &str, path: &Path) -> Result<(File, u64), Problem> {
    // NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).expect("the flags of open(2) are an int");
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(problem::no_such_blob(sha256)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            tracing::warn!(path = %path.display(), "a symbolic link stands where a blob should be");
            return Err(problem::no_such_blob(sha256));
        }
        Err(error) => return Err(problem::blob_unreadable(sha256, &error)),
    };
    let about = file.metadata().await.map_err(|error| problem::blob_unreadable(sha256, &error))?;
    if !about.is_file() {
        return Err(problem::no_such_blob(sha256));
    }
    Ok((file, about.len()))
}

async fn next_piece(mut file: Take<File>) -> io::Result<Option<(Bytes, Take<File>)>> {
    let mut piece = BytesMut::with_capacity(READ_BYTES);
    let read = file.read_buf(&mut piece).await?;
    Ok((read > 0).then(|| (piece.freeze(), file)))
}
