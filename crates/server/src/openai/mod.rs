//! OpenAI's chat API over groups of runners: `POST /v1/chat/completions`, `GET /v1/models`. A model is a group, an
//! answer is the output of a task `chat`, read by cursor from its run as every watcher reads it.
//!
//! ```text
//! body ──► request ──► handlers ──submit──► node
//!                         │ attach
//!                         ▼
//!        Events ──► turn: pieces, rewinds, one ending ──┬──► whole: one JSON
//!                        (a failure is a fault)         └──► told: chunks ──► crate::stream
//! ```
//! 1. `request` takes the body apart; the runner gets it as it came;
//! 2. `turn` makes of a run's events what a chat needs: `piece`s of text and deltas, a rewind, and how it ended;
//! 3. `told` writes it as it comes; where another attempt begins anew, its `transcript` keeps the client from seeing
//!    anything twice. `whole` collects it;
//! 4. `fault` is a failure, `refusal` writes it and every other refusal as OpenAI's clients read them.
//!
//! What a client meets is in `docs/openai.md`.

mod fault;
pub(crate) mod handlers;
mod models;
mod piece;
pub(crate) mod refusal;
pub(crate) mod request;
mod told;
mod transcript;
mod turn;
mod whole;

pub(crate) use told::cut;

/// Whether refusals at this path are told as OpenAI's clients read them.
pub(crate) fn speaks(path: &str) -> bool {
    path == "/v1/chat/completions" || path == "/v1/models" || path.starts_with("/v1/models/")
}
