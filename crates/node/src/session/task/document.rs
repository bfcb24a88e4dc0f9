//! What people and programs ask of the notebook's content.

use outlive_protocol::http::Problem;

use super::super::handle::{Answer, DocumentAsk};
use super::super::journal::WriteError;
use super::Task;

impl Task {
    pub(super) async fn asked_document(
        &mut self,
        ask: DocumentAsk,
    ) -> Result<Result<Answer, Problem>, WriteError> {
        let _ = ask;
        Ok(Err(crate::problem::internal("not there yet")))
    }
}
