//! load on a loopback gateway beside the disk's own limit
fn main() {}
