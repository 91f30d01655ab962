//! Stories of devices and a log, with a gateway that checks what the real one checks. Every call of a device runs on a
//! freshly opened keystore and engine, so each step is also a restart.

mod care;
mod conversation;
mod device;
mod dishonest;
mod federation;
mod floor;
mod garbage;
mod gateway;
mod incarnations;
mod key_packages;
mod late;
mod membership;
mod rejoin;
mod removals;
mod reports;
mod restored;
mod rotation;
mod rules;
mod sent;
