//! the gateway's binary: composition, configuration, telemetry
