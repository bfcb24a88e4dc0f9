//! Kernelspecs, connection files, the message codec, channels and heartbeat.
