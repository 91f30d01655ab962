//! audit events to leaf, parts and salts
