//! The engine trait with its contract, and its implementations.
