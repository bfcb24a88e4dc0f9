//! The daemon dies: the rows D1 to D5 of the acceptance matrix.

mod away;
mod strangers;
