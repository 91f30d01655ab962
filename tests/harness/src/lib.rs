//! starts real gateways and applications for tests; holds the demo
