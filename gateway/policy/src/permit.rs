//! Proof that the engine said yes. Only this crate can make one, and whoever holds it may use it once.

use std::marker::PhantomData;

use lianxin_types::{ChannelId, DeviceUri};

/// Something that may be asked for. One type for each, so that a permit for one cannot serve for another.
pub trait Action: private::Sealed {
    /// The word for it in audit records.
    const NAME: &'static str;
}

mod private {
    pub trait Sealed {}
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}
            impl private::Sealed for $name {}
            impl Action for $name {
                const NAME: &'static str = $word;
            }
        )*
    };
}

actions! {
    /// Start a channel.
    CreateChannel = "create-channel";
    /// Change who is in a channel.
    CommitChange = "commit";
    /// Start the group that carries a channel on.
    StartIncarnation = "start-incarnation";
    /// Ask to be removed.
    Leave = "leave";
    /// Say that a commit cannot be processed.
    ReportCommit = "report";
    /// Let a device of the own department commit again.
    AllowCommitter = "allow-committer";
    /// Send an application message.
    SendMessage = "send";
    /// Open a stream for what is meant for the caller.
    OpenReceive = "receive";
    /// Follow a channel's log.
    Follow = "follow";
    /// Read a page of a channel's log.
    ReadHistory = "history";
    /// Read GroupInfo or the public tree.
    ReadPublicState = "public-state";
    /// Put another GroupInfo in the place of the one that is served.
    ReplaceGroupInfo = "replace-group-info";
    /// List the caller's own channels.
    ListChannels = "list";
    /// Store key packages of the caller.
    PublishKeyPackages = "publish-key-packages";
    /// Take key packages of others for a channel.
    ClaimKeyPackages = "claim-key-packages";
    /// Ask for the caller's next certificates.
    RenewCertificates = "renew-certificates";
    /// Read what devices of the own department ask for, and answer.
    IssueCertificates = "issue-certificates";
    /// Read trust bundle and revocation lists.
    ReadTrust = "read-trust";
}

/// The engine's yes to one action of one caller. The ids of the action are taken from it, never given beside it.
///
/// It has private fields and is neither `Clone` nor `Default`: outside this crate nothing can make one.
/// ```compile_fail
/// let permit: lianxin_policy::Permit<lianxin_policy::SendMessage> = Default::default();
/// ```
/// ```compile_fail
/// fn twice(permit: lianxin_policy::Permit<lianxin_policy::SendMessage>) {
///     let again = permit.clone();
/// }
/// ```
/// ```compile_fail
/// fn forge(caller: lianxin_types::DeviceUri) {
///     let _: lianxin_policy::Permit<lianxin_policy::SendMessage> = lianxin_policy::Permit { caller, channel: None };
/// }
/// ```
#[derive(Debug)]
pub struct Permit<A: Action> {
    caller: DeviceUri,
    channel: Option<ChannelId>,
    policy_version: u64,
    action: PhantomData<A>,
}

impl<A: Action> Permit<A> {
    pub(crate) fn new(caller: DeviceUri, channel: Option<ChannelId>, policy_version: u64) -> Self {
        Self { caller, channel, policy_version, action: PhantomData }
    }

    /// Who may.
    pub fn caller(&self) -> &DeviceUri {
        &self.caller
    }

    /// In which channel; `None` for actions outside channels.
    pub fn channel(&self) -> Option<&ChannelId> {
        self.channel.as_ref()
    }

    /// Version of the policy that said yes; 0 while departments publish none.
    pub const fn policy_version(&self) -> u64 {
        self.policy_version
    }
}
