//! A blob's bytes, streamed from its file.

use std::io;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use outlive_core::limits::RUNNER_BYTES_MAX;
use outlive_protocol::http::Problem;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, Take};

use crate::problem;

/// How much is read at once, in bytes: large enough that the hop to the blocking pool does not count.
const READ_BYTES: usize = 256 << 10;

/// The answer with the content of `file`, which the node has chosen by a checked name.
pub(super) async fn answer(sha256: &str, file: std::fs::File) -> Result<Response<Body>, Problem> {
    let (file, length) = measured(sha256, file).await?;
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
pub(crate) async fn read(sha256: &str, file: std::fs::File) -> Result<Vec<u8>, Problem> {
    let (file, length) = measured(sha256, file).await?;
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(RUNNER_BYTES_MAX));
    let read = file.take(RUNNER_BYTES_MAX as u64).read_to_end(&mut content).await;
    read.map_err(|error| problem::blob_unreadable(sha256, &error))?;
    Ok(content)
}

async fn measured(sha256: &str, file: std::fs::File) -> Result<(File, u64), Problem> {
    let file = File::from_std(file);
    let about = file.metadata().await.map_err(|error| problem::blob_unreadable(sha256, &error))?;
    Ok((file, about.len()))
}

async fn next_piece(mut file: Take<File>) -> io::Result<Option<(Bytes, Take<File>)>> {
    let mut piece = BytesMut::with_capacity(READ_BYTES);
    let read = file.read_buf(&mut piece).await?;
    Ok((read > 0).then(|| (piece.freeze(), file)))
}
