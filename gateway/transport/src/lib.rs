//! listener and mutual TLS; hands up stream and peer certificate
