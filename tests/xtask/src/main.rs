//! the project's own commands: test, ci, tidy
fn main() {}
