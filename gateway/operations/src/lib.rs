//! everything that can be asked of the gateway, behind the guard
