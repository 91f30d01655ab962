//! decisions: request in, permit or denial out; no I/O
