//! Operating-system processes: spawn, contain, watch, stop, gather evidence.
