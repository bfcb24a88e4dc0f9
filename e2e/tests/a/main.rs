//! A process dies: the rows A1 to A16 of the acceptance matrix, with real kernels.

mod death;
mod flood;
mod hang;
mod launch;
mod restart;
mod stop;
