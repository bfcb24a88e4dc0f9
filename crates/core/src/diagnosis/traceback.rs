//! Reads Python's last words: the last traceback of standard error with its chain.
