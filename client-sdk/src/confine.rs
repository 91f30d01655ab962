//! What goes wrong in one channel stays in it: the others go on, the application is told, and the next connection tries again.

use lianxin_connection::Receive;
use lianxin_keystore::KeystoreError;
use lianxin_mls::MlsError;
use lianxin_types::{ChannelId, IdempotencyId};

use crate::drive::Drive;
use crate::error::chain;
use crate::waiters::Failure;
use crate::{ClientError, wishes};

/// Whether an error that came of a channel's event, answer or record says nothing of the connection or of the state as a whole.
pub(crate) const fn is_of_one_channel(error: &ClientError) -> bool {
    match error {
        ClientError::Mls(MlsError::Keystore(_)) => false,
        // A panic in a transaction is a fault of ours; whatever brought it about would bring it about again.
        ClientError::Mls(_) | ClientError::Record(_) | ClientError::State(KeystoreError::Panicked) => true,
        _ => false,
    }
}

impl Drive {
    /// Keeps an error of one channel from ending the connection. `change`: the one that it came of, whose caller is to wait no more.
    pub(crate) async fn confine(
        &mut self,
        channel: ChannelId,
        change: Option<IdempotencyId>,
        done: Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let error = match done {
            Err(error) if is_of_one_channel(&error) => error,
            done => return done,
        };
        tracing::error!(?channel, error = %chain(&error), "a channel can go no further on this connection");
        self.requests.push_back(Receive::Unfollow { channel });
        self.gone(channel, format!("this device cannot process what the gateway gives: {}", chain(&error))).await?;
        // Also where it has told nothing, because it is no member yet.
        self.gone.insert(channel);
        if let Some(change) = change {
            let change = self.shared.transaction(move |tx, _| wishes::who_waits(tx, channel, change)).await?;
            self.shared.waiters.settle(change, Err(Failure::NotServed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lianxin_types::{DecodeError, Sequence};

    use super::*;

    #[test]
    fn only_the_state_as_a_whole_and_the_connection_end_a_connection() {
        let gap = MlsError::Gap { expected: Sequence(1), found: Sequence(2) };
        let of_one = [
            ClientError::Mls(gap),
            ClientError::Record(DecodeError::OutOfRange { field: "x" }),
            ClientError::State(KeystoreError::Panicked),
        ];
        assert!(of_one.iter().all(is_of_one_channel));
        let of_all = [
            ClientError::State(KeystoreError::Closed),
            ClientError::Mls(MlsError::Keystore(KeystoreError::Closed)),
            ClientError::Closed,
        ];
        assert!(!of_all.iter().any(is_of_one_channel));
    }
}
