//! Kernelspecs, connection file, message codec, channels and heartbeat: everything that Outlive knows about
//! Jupyter kernels, and nothing about processes, sessions or policy.
//!
//! In the order in which a launch uses it:
//!
//! ```text
//! surroundings  the user's variables and folder         ┐
//! kernelspec    which kernels exist                     │ in the CLI and the daemon
//! environment   a Python that has ipykernel             ┘
//! connection    ports or socket paths, key, the file    ┐
//! channels      sockets to the kernel, one reader each  │ in the shim
//! message       the codec over raw frames               │
//! request       the messages that Outlive itself makes  │
//! heartbeat     echo with a deadline                    ┘
//! ```

pub mod channels;
pub mod connection;
pub mod environment;
pub mod heartbeat;
pub mod kernelspec;
pub mod message;
pub mod request;
pub mod surroundings;
mod timestamp;
