//! one mutual-TLS channel to a zone, reconnecting, typed calls
