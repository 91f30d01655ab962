//! caller from the verified certificate, current bundle and revocation
