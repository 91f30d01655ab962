//! channels, commits, framing, key packages, inboxes, fan-out
