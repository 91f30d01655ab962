//! Wire types that several subjects share.

/// Generated from `api/lianxin/types/v1/`.
pub mod v1 {
    tonic::include_proto!("lianxin.types.v1");
}
