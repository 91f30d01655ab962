//! mints a throw-away federation for demos and tests
