//! the embedded engine of a zone on sled
