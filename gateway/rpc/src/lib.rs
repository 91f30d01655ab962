//! face: the tonic services
