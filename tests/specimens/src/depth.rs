//! How far bytes came.

/// How far bytes came in a parser and the rules behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// They could not be read.
    Unread,
    /// They could be read, and a rule behind the reading refused them.
    Refused,
    /// They were accepted.
    Accepted,
}

impl Depth {
    /// Read, then judged.
    pub(crate) fn of<T, R, V, E>(read: Result<T, R>, judge: impl FnOnce(T) -> Result<V, E>) -> Self {
        match read.map(judge) {
            Err(_) => Self::Unread,
            Ok(Err(_)) => Self::Refused,
            Ok(Ok(_)) => Self::Accepted,
        }
    }

    /// Where reading is all there is.
    pub(crate) fn of_reading<T, E>(read: Result<T, E>) -> Self {
        match read {
            Err(_) => Self::Unread,
            Ok(_) => Self::Accepted,
        }
    }
}
