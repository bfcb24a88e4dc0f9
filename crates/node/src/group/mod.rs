//! Groups of runners: the task that owns one, its links to several shims, and what the API says of them.
//!
//! | file | holds |
//! |---|---|
//! | [`task`] | the loop: one input at a time into `core::group`, facts to the log, effects out |
//! | [`process`] | orders to the members' shims, records from them |
//! | [`links`] | all members' shims, heard in turns |
//! | [`asked`] | what the task answers to those who ask |
//! | [`config`] | what a group is made with, as clients say it |
//! | [`names`] | which group has which name |
//! | [`open`] | a group that is made, or taken up after a restart |
//! | [`view`] | the state as clients see it |
//! | [`api`] | what surfaces ask |

mod api;
mod asked;
mod config;
mod links;
mod names;
mod open;
mod process;
mod replay;
mod task;
pub(crate) mod view;

pub(crate) use open::resume;
