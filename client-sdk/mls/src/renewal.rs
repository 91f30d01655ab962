//! What in a channel is older than what this device knows, and goes forward with a commit that changes nothing else.

use lianxin_keystore::Transaction;
use lianxin_profile::moved_to_removal_key;
use lianxin_trust::Federation;
use lianxin_types::ChannelId;

use crate::channel::OpenChannel;
use crate::record::{Records, Standing};
use crate::{Mls, MlsError};

/// What a commit would renew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// Nothing.
    Nothing,
    /// This device's leaf carries another certificate than the device has now; nobody else can renew that.
    OwnLeaf,
    /// The keys of this device's leaf are a last resort's, or those of an older copy of its state, or older than its schedule
    /// allows ([`crate::LeafCare`]), or have gone ahead of what others can open ([`MlsError::TooFarAhead`]).
    Keys,
    /// The channel names a removal key of before; every member can renew that.
    RemovalKey,
}

impl Mls {
    /// What a commit would renew in a channel, the own leaf first.
    ///
    /// # Errors
    /// [`MlsError::Profile`], [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn renewal(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
    ) -> Result<Renewal, MlsError> {
        let records = Records::new(tx, channel);
        match records.load()? {
            Some(record) if record.standing == Standing::Active => {
                let open = self.open(tx, records, record)?;
                let renewal = self.renewal_of(&open, federation)?;
                open.keep()?;
                Ok(renewal)
            }
            _ => Ok(Renewal::Nothing),
        }
    }

    pub(crate) fn renewal_of(&self, open: &OpenChannel<'_>, federation: &Federation) -> Result<Renewal, MlsError> {
        let extensions = open.group.public_group().group_context().extensions();
        let own = open.group.own_leaf_node();
        let is_other = own.is_some_and(|leaf| *leaf.credential() != self.credential().credential);
        // A certificate that nobody would accept is no renewal; this device finds that out elsewhere.
        if is_other && self.own_identity(federation).is_ok() {
            Ok(Renewal::OwnLeaf)
        } else if self.is_due(&open.record.group.channel, open.records.leaf()?) || open.records.is_too_far_ahead()? {
            Ok(Renewal::Keys)
        } else if moved_to_removal_key(extensions, federation)?.is_some() {
            Ok(Renewal::RemovalKey)
        } else {
            Ok(Renewal::Nothing)
        }
    }
}
