//! The group context's extensions: exactly three, each as the profile demands (PROTOCOL 3).

use lianxin_trust::{Federation, Zone};
use lianxin_types::{GroupId, Timestamp, ZoneId};
use openmls::prelude::{
    BasicCredential, Extension, ExtensionType, Extensions, ExternalSender, GroupContext, ProtocolVersion,
    SignaturePublicKey, UnknownExtension,
};

use crate::{
    AsOf, CHANNEL_CONTEXT_EXTENSION, CIPHERSUITE, ChannelContext, ContextError, Validity, required_capabilities,
};

/// The one external sender of a channel in `zone`, with one of the zone's removal keys.
///
/// Its credential is a basic one that holds the zone's name: the removal key stands in the trust bundle as a bare key and
/// has no certificate, and RFC 9420 section 12.1.8.1 lets the application authenticate an external sender as it likes. We
/// compare it with the bundle, key and credential, so the credential must be one that everybody can compute. Members'
/// capabilities list basic credentials for its sake ([`crate::capabilities`]).
pub fn external_sender(zone: &ZoneId, removal_key: &[u8; 32]) -> ExternalSender {
    let credential = BasicCredential::new(zone.as_str().as_bytes().to_vec());
    ExternalSender::new(SignaturePublicKey::from(&removal_key[..]), credential.into())
}

/// All extensions of a channel's group context, in the order 0xF0A1, required capabilities, external senders.
pub fn group_context_extensions(context: &ChannelContext, removal_key: &[u8; 32]) -> Extensions<GroupContext> {
    Extensions::from_vec(vec![
        channel_extension(context),
        Extension::RequiredCapabilities(required_capabilities()),
        Extension::ExternalSenders(vec![external_sender(context.zone(), removal_key)]),
    ])
    .expect("three different kinds, each allowed in a group context")
}

fn channel_extension(context: &ChannelContext) -> Extension {
    Extension::Unknown(CHANNEL_CONTEXT_EXTENSION, UnknownExtension(context.to_bytes()))
}

/// `before` with `context` in place of its 0xF0A1 and everything else unchanged: what a proposal that moves the context
/// forward must hold, because it replaces all extensions at once (RFC 9420 section 12.1.7).
///
/// # Errors
/// [`ContextError::Changed`] if `context` may not follow the one in `before`; as [`read_context`] if that is not ours.
pub fn moved_forward(
    before: &Extensions<GroupContext>,
    context: &ChannelContext,
) -> Result<Extensions<GroupContext>, ContextError> {
    channel_context(before)?.check_successor(context)?;
    let all = before.iter().map(|one| match one.extension_type() {
        ExtensionType::Unknown(CHANNEL_CONTEXT_EXTENSION) => channel_extension(context),
        _ => one.clone(),
    });
    Ok(Extensions::from_vec(all.collect()).expect("the same kinds as before"))
}

/// `before` with the zone's removal key in use as its external sender and everything else unchanged, for a commit that moves
/// a channel to it; `None` if it names that already, or `federation` does not know the zone.
///
/// # Errors
/// [`ContextError`] if `before` is not ours.
pub fn moved_to_removal_key(
    before: &Extensions<GroupContext>,
    federation: &Federation,
) -> Result<Option<Extensions<GroupContext>>, ContextError> {
    let context = channel_context(before)?;
    let Some(zone) = federation.bundle().bundle.zone(context.zone()) else { return Ok(None) };
    if removal_key_age(before, zone) == Some(0) {
        return Ok(None);
    }
    Ok(Some(with_senders(before, vec![external_sender(&zone.id, &zone.removal_key)])))
}

fn with_senders(before: &Extensions<GroupContext>, senders: Vec<ExternalSender>) -> Extensions<GroupContext> {
    let all = before.iter().map(|one| match one.extension_type() {
        ExtensionType::ExternalSenders => Extension::ExternalSenders(senders.clone()),
        _ => one.clone(),
    });
    Extensions::from_vec(all.collect()).expect("the same kinds as before")
}

/// Whether the one external sender of a group is a removal key that the bundle lists, in use or of before, or that was listed
/// at `then`. From another one nobody takes a Remove: so a stolen key is useless from the bundle on that lists it no more.
pub fn is_removal_key_listed(context: &GroupContext, federation: &Federation, then: Timestamp) -> bool {
    let extensions = context.extensions();
    channel_context(extensions).is_ok_and(|channel| {
        let zone = channel.zone();
        key_age(extensions, zone, federation.removal_keys_then(zone, then)).is_some()
    })
}

/// How many removal keys of the zone are newer than the one that `extensions` name as their one external sender; `None` if
/// that is none of the zone's.
fn removal_key_age(extensions: &Extensions<GroupContext>, zone: &Zone) -> Option<usize> {
    key_age(extensions, &zone.id, zone.removal_keys())
}

fn key_age<'a>(
    extensions: &Extensions<GroupContext>,
    zone: &ZoneId,
    mut newest_first: impl Iterator<Item = &'a [u8; 32]>,
) -> Option<usize> {
    let senders = extensions.external_senders()?;
    newest_first.position(|key| *senders == [external_sender(zone, key)])
}

/// The channel context out of a group context that keeps the profile in everything: suite, version, group id, the three
/// extensions, and a removal key of the zone out of the trust bundle, in use or of before.
///
/// # Errors
/// [`ContextError`]: of every kind that is about a context as it stands.
pub fn read_context(context: &GroupContext, federation: &Federation) -> Result<ChannelContext, ContextError> {
    let channel = stored_context(context)?;
    let zone = channel.zone();
    let known = federation.bundle().bundle.zone(zone);
    read_extensions(context.extensions(), known.ok_or_else(|| ContextError::UnknownZone { zone: zone.clone() })?)
}

/// As [`read_context`] without the trust bundle, for a group that was read with it before: suite, version, group id and
/// channel context.
///
/// # Errors
/// [`ContextError::Suite`], [`ContextError::GroupId`], or why 0xF0A1 is not a channel context.
pub fn stored_context(context: &GroupContext) -> Result<ChannelContext, ContextError> {
    if context.ciphersuite() != CIPHERSUITE || context.protocol_version() != ProtocolVersion::Mls10 {
        return Err(ContextError::Suite);
    }
    let channel = channel_context(context.extensions())?;
    match GroupId::try_from(context.group_id().as_slice()) {
        Ok(group) if group.channel == channel.channel() => Ok(channel),
        _ => Err(ContextError::GroupId),
    }
}

/// The channel context out of `extensions`, which must be exactly the three of the profile.
///
/// # Errors
/// [`ContextError::Missing`], [`ContextError::Unexpected`], [`ContextError::RequiredCapabilities`],
/// [`ContextError::ExternalSender`], or why 0xF0A1 is not a channel context.
fn read_extensions(extensions: &Extensions<GroupContext>, zone: &Zone) -> Result<ChannelContext, ContextError> {
    let context = channel_context(extensions)?;
    let required = extensions.required_capabilities().ok_or(ContextError::Missing { code_point: 3 })?;
    if *required != required_capabilities() {
        return Err(ContextError::RequiredCapabilities);
    }
    extensions.external_senders().ok_or(ContextError::Missing { code_point: 5 })?;
    removal_key_age(extensions, zone).ok_or(ContextError::ExternalSender)?;
    let ours = |kind: &ExtensionType| {
        matches!(
            kind,
            ExtensionType::Unknown(CHANNEL_CONTEXT_EXTENSION)
                | ExtensionType::RequiredCapabilities
                | ExtensionType::ExternalSenders
        )
    };
    match extensions.iter().map(Extension::extension_type).find(|kind| !ours(kind)) {
        Some(other) => Err(ContextError::Unexpected { code_point: other.into() }),
        None => Ok(context),
    }
}

fn channel_context(extensions: &Extensions<GroupContext>) -> Result<ChannelContext, ContextError> {
    let missing = ContextError::Missing { code_point: CHANNEL_CONTEXT_EXTENSION };
    ChannelContext::from_bytes(&extensions.unknown(CHANNEL_CONTEXT_EXTENSION).ok_or(missing)?.0)
}

/// Whether the extensions of `after` may follow those of `before`: only 0xF0A1 may differ, and only forward, and the
/// external sender, to a newer removal key of the zone.
pub(crate) fn check_change(
    federation: &Federation,
    before: &GroupContext,
    after: &GroupContext,
    as_of: AsOf,
) -> Result<ChannelContext, ContextError> {
    let next = stored_context(after)?;
    let mut expected = moved_forward(before.extensions(), &next)?;
    if before.extensions().required_capabilities() != after.extensions().required_capabilities() {
        return Err(ContextError::RequiredCapabilities);
    }
    if before.extensions().external_senders() != after.extensions().external_senders() {
        if as_of.validity != Validity::WasJudged {
            check_newer_removal_key(federation, next.zone(), before.extensions(), after.extensions(), as_of)?;
        }
        let senders = after.extensions().external_senders().ok_or(ContextError::ExternalSender)?;
        expected = with_senders(&expected, senders.to_vec());
    }
    if expected != *after.extensions() {
        return Err(ContextError::Changed { field: "extensions" });
    }
    Ok(next)
}

/// Whether `after` names a newer one of the zone's removal keys than `before`: of those that are listed, and for an event of
/// the log of those that were listed then, too.
fn check_newer_removal_key(
    federation: &Federation,
    zone: &ZoneId,
    before: &Extensions<GroupContext>,
    after: &Extensions<GroupContext>,
    as_of: AsOf,
) -> Result<(), ContextError> {
    let bundle = &federation.bundle().bundle;
    let listed = bundle.zone(zone).ok_or_else(|| ContextError::UnknownZone { zone: zone.clone() })?;
    let age = |extensions| match as_of.validity {
        Validity::WasValid => key_age(extensions, zone, federation.removal_keys_then(zone, as_of.time)),
        _ => removal_key_age(extensions, listed),
    };
    let age_after = age(after).ok_or(ContextError::ExternalSender)?;
    // One that is listed no more is older than any that is.
    match age(before).is_none_or(|age_before| age_before > age_after) {
        true => Ok(()),
        false => Err(ContextError::ExternalSender),
    }
}
