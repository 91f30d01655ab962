//! the audit log's leaf, parts and commitment; used at both ends
