//! Words of Lianxin as types: identities, ids, labels, limits, and the seams for time and randomness.
//!
//! For: every other crate; this is the ground floor. Above: `trust`, `tlog`, `profile`, `proto` and everything on them.
//! Must never know: sockets, files, protobuf, MLS bytes or TLS. The only door to the system clock and the system's
//! random source is here, so that everything above can be driven by a simulation.

mod clock;
mod codec;
mod elsewhere;
mod ids;
mod label;
mod limits;
mod random;
mod throttle;
mod uri;

pub use clock::{Clock, Monotonic, SystemClock, Timestamp};
pub use codec::{DecodeError, Reader, Writer};
pub use elsewhere::elsewhere;
pub use ids::{ChannelId, Digest, Epoch, GroupId, IdempotencyId, Incarnation, InvalidId, Sequence, labelled_sha256};
pub use label::{Classification, Label, LabelError};
pub use limits::{LIMITS, LimitRow, Limits};
pub use random::{Random, SystemRandom};
pub use throttle::{Rate, Throttle, Throttles};
pub use uri::{DepartmentId, DeviceUri, Kind, UriError, ZoneId};
