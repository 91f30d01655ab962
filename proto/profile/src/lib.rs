//! our MLS profile: code points, authenticated data, chain, acceptance rules that both ends check
