//! trust bundle, certificate to identity, chain, revocation; used at both ends
