//! the ZoneStore trait, the committer, its conformance suite and the memory engine
