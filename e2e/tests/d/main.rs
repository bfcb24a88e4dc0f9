//! The daemon dies: the rows D1 to D6 of the acceptance matrix.

mod away;
mod damage;
mod long_away;
mod question;
mod store;
mod strangers;
mod upgrade;
