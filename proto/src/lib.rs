//! the contract: generated wire types, wire to typed values, reason codes
