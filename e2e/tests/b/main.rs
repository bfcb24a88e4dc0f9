//! Frames, peers, clients: the rows B1 to B6 of the acceptance matrix.

mod come_back;
mod door;
mod frames;
mod volume;
