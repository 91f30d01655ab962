//! the SDK's MLS engine: bytes in, effects out; no network
