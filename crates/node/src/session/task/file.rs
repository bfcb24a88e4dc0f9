//! What is asked of the notebook's file, and what happens to it.

use outlive_protocol::http::Problem;

use super::super::handle::{Answer, FileAsk};
use super::super::journal::WriteError;
use super::Task;

impl Task {
    pub(super) async fn asked_file(&mut self, ask: FileAsk) -> Result<Result<Answer, Problem>, WriteError> {
        let _ = ask;
        Ok(Err(crate::problem::internal("not there yet")))
    }
}
