//! the crate that department applications embed
