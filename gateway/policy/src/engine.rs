//! The rules.

use lianxin_types::{DeviceUri, Kind, Limits};

use crate::decision::{ChannelFacts, Denial, Request};
use crate::lease::{Generation, Lease};
use crate::permit::{
    AllowCommitter, ClaimKeyPackages, CommitChange, CreateChannel, Follow, IssueCertificates, Leave, ListChannels,
    OpenReceive, Permit, PublishKeyPackages, ReadHistory, ReadPublicState, ReadTrust, RenewCertificates,
    ReplaceGroupInfo, ReportCommit, StartIncarnation,
};

/// Version of the rules while departments publish no documents.
const POLICY_VERSION: u64 = 0;

/// Decides. Holds the limits and nothing else.
#[derive(Debug, Clone)]
pub struct Engine {
    limits: Limits,
}

impl Engine {
    /// An engine with these limits.
    pub const fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// May the caller start this channel? Its own department must be one that the channel names.
    ///
    /// # Errors
    /// [`Denial`]: wrong kind, too many departments, own department not named, expired label.
    pub fn create_channel(&self, request: &Request<'_>) -> Result<Permit<CreateChannel>, Denial> {
        let channel = self.channel(request)?;
        let limit = self.limits.channel_departments_max;
        if channel.departments.len() > limit {
            return Err(Denial::LimitReached { what: "departments per channel", limit: limit as u64 });
        }
        named(channel.departments, request.caller.department())?;
        not_expired(&channel, request)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller make this change? Departments of added devices must be named; the bounds of the channel hold.
    ///
    /// # Errors
    /// [`Denial`]: not a member, leaving, expired, paused, department not named, limit reached.
    pub fn commit(&self, request: &Request<'_>) -> Result<Permit<CommitChange>, Denial> {
        let channel = self.active_member(request)?;
        if channel.is_paused {
            return Err(Denial::CommitterPaused);
        }
        self.check_additions(&channel, request)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller start the group that carries the channel on? It leaves behind whom the log names, and nobody else by the
    /// caller's choice; so it may who may commit.
    ///
    /// # Errors
    /// [`Denial`]: neither a member nor awaited, leaving, expired, paused.
    pub fn start_incarnation(&self, request: &Request<'_>) -> Result<Permit<StartIncarnation>, Denial> {
        let channel = active(reader(self.channel(request)?)?, request)?;
        if channel.is_paused {
            return Err(Denial::CommitterPaused);
        }
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller take key packages for this channel? As for the commit that will follow.
    ///
    /// # Errors
    /// [`Denial`]: not a member, leaving, expired, department not named, limit reached.
    pub fn claim_key_packages(&self, request: &Request<'_>) -> Result<Permit<ClaimKeyPackages>, Denial> {
        let channel = self.active_member(request)?;
        self.check_additions(&channel, request)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller leave? A member always may, also when the label has ended.
    ///
    /// # Errors
    /// [`Denial`]: not a member, leaving already.
    pub fn leave(&self, request: &Request<'_>) -> Result<Permit<Leave>, Denial> {
        let channel = member(self.channel(request)?)?;
        if channel.is_leaving {
            return Err(Denial::Leaving);
        }
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller say that it cannot process a commit? A member may, also when the label has ended.
    ///
    /// # Errors
    /// [`Denial`]: not a member, leaving.
    pub fn report(&self, request: &Request<'_>) -> Result<Permit<ReportCommit>, Denial> {
        let channel = member(self.channel(request)?)?;
        if channel.is_leaving {
            return Err(Denial::Leaving);
        }
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller let `committer` commit again? Only another device of its department may that is or was in the channel.
    ///
    /// # Errors
    /// [`Denial`]: channel not available, not the owner.
    pub fn allow_committer(
        &self,
        request: &Request<'_>,
        committer: &DeviceUri,
    ) -> Result<Permit<AllowCommitter>, Denial> {
        let channel = self.channel(request)?;
        if !channel.is_member && !channel.is_known {
            return Err(Denial::ChannelNotAvailable);
        }
        let is_owner = request.caller.department() == committer.department() && request.caller != committer;
        if !is_owner || !channel.was_member {
            return Err(Denial::NotOwner);
        }
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller send here, until something changes?
    ///
    /// # Errors
    /// [`Denial`]: not a member, leaving, expired.
    pub fn send_lease(&self, request: &Request<'_>, generation: Generation) -> Result<Lease, Denial> {
        let channel = self.active_member(request)?;
        Ok(Lease::new(request.caller.clone(), channel.id, generation, channel.expires, POLICY_VERSION))
    }

    /// May the caller open a Receive stream?
    ///
    /// # Errors
    /// [`Denial::WrongKind`].
    pub fn open_receive(&self, request: &Request<'_>) -> Result<Permit<OpenReceive>, Denial> {
        own_kind(request)?;
        Ok(permit(request, None))
    }

    /// May the caller follow the channel's log?
    ///
    /// # Errors
    /// [`Denial`]: neither a member nor awaited.
    pub fn follow(&self, request: &Request<'_>) -> Result<Permit<Follow>, Denial> {
        let channel = reader(self.channel(request)?)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller read a page of the channel's log?
    ///
    /// # Errors
    /// [`Denial`]: neither a member nor awaited.
    pub fn read_history(&self, request: &Request<'_>) -> Result<Permit<ReadHistory>, Denial> {
        let channel = reader(self.channel(request)?)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller read GroupInfo or tree?
    ///
    /// # Errors
    /// [`Denial`]: not a member.
    pub fn read_public_state(&self, request: &Request<'_>) -> Result<Permit<ReadPublicState>, Denial> {
        let channel = member(self.channel(request)?)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller replace the GroupInfo that is served?
    ///
    /// # Errors
    /// [`Denial`]: not a member, leaving, expired.
    pub fn replace_group_info(&self, request: &Request<'_>) -> Result<Permit<ReplaceGroupInfo>, Denial> {
        let channel = self.active_member(request)?;
        Ok(permit(request, Some(&channel)))
    }

    /// May the caller list its own channels?
    ///
    /// # Errors
    /// [`Denial::WrongKind`].
    pub fn list_channels(&self, request: &Request<'_>) -> Result<Permit<ListChannels>, Denial> {
        own_kind(request)?;
        Ok(permit(request, None))
    }

    /// May the caller store key packages of its own?
    ///
    /// # Errors
    /// [`Denial::WrongKind`].
    pub fn publish_key_packages(&self, request: &Request<'_>) -> Result<Permit<PublishKeyPackages>, Denial> {
        own_kind(request)?;
        Ok(permit(request, None))
    }

    /// May the caller ask its department for its next certificates?
    ///
    /// # Errors
    /// [`Denial::WrongKind`].
    pub fn renew_certificates(&self, request: &Request<'_>) -> Result<Permit<RenewCertificates>, Denial> {
        own_kind(request)?;
        Ok(permit(request, None))
    }

    /// May the caller answer what devices of its own department ask for? An issuer may, and nobody else.
    ///
    /// # Errors
    /// [`Denial::WrongKind`].
    pub fn issue_certificates(&self, request: &Request<'_>) -> Result<Permit<IssueCertificates>, Denial> {
        if request.caller.kind() == Kind::Issuer { Ok(permit(request, None)) } else { Err(Denial::WrongKind) }
    }

    /// May the caller read the federation's trust bundle? Everybody in it may.
    ///
    /// # Errors
    /// None today; the type leaves room for a rule.
    pub fn read_trust(&self, request: &Request<'_>) -> Result<Permit<ReadTrust>, Denial> {
        Ok(permit(request, None))
    }

    fn channel<'a>(&self, request: &Request<'a>) -> Result<ChannelFacts<'a>, Denial> {
        own_kind(request)?;
        request.channel.ok_or(Denial::ChannelNotAvailable)
    }

    fn active_member<'a>(&self, request: &Request<'a>) -> Result<ChannelFacts<'a>, Denial> {
        active(member(self.channel(request)?)?, request)
    }

    fn check_additions(&self, channel: &ChannelFacts<'_>, request: &Request<'_>) -> Result<(), Denial> {
        for department in request.departments_added {
            named(channel.departments, department)?;
        }
        let per_commit = self.limits.invites_per_commit_max;
        if request.devices_added > per_commit {
            return Err(Denial::LimitReached { what: "invites per commit", limit: per_commit as u64 });
        }
        let members = self.limits.channel_members_max;
        if request.members_after > members {
            return Err(Denial::LimitReached { what: "members per channel", limit: members as u64 });
        }
        Ok(())
    }
}

fn own_kind(request: &Request<'_>) -> Result<(), Denial> {
    if request.caller.kind().is_member() { Ok(()) } else { Err(Denial::WrongKind) }
}

fn active<'a>(channel: ChannelFacts<'a>, request: &Request<'_>) -> Result<ChannelFacts<'a>, Denial> {
    if channel.is_leaving {
        return Err(Denial::Leaving);
    }
    not_expired(&channel, request)?;
    Ok(channel)
}

/// Who is to be seated again reads what it may read as a member.
fn reader(channel: ChannelFacts<'_>) -> Result<ChannelFacts<'_>, Denial> {
    if channel.is_awaited { Ok(channel) } else { member(channel) }
}

/// A stranger learns nothing; a former member learns that it is one.
fn member(channel: ChannelFacts<'_>) -> Result<ChannelFacts<'_>, Denial> {
    match (channel.is_member, channel.is_known) {
        (true, _) => Ok(channel),
        (false, true) => Err(Denial::NotMember),
        (false, false) => Err(Denial::ChannelNotAvailable),
    }
}

fn not_expired(channel: &ChannelFacts<'_>, request: &Request<'_>) -> Result<(), Denial> {
    if channel.expires.is_some_and(|end| request.now >= end) { Err(Denial::ChannelExpired) } else { Ok(()) }
}

fn named(departments: &[lianxin_types::DepartmentId], department: &lianxin_types::DepartmentId) -> Result<(), Denial> {
    if departments.contains(department) {
        Ok(())
    } else {
        Err(Denial::DepartmentNotNamed { department: department.clone() })
    }
}

fn permit<A: crate::permit::Action>(request: &Request<'_>, channel: Option<&ChannelFacts<'_>>) -> Permit<A> {
    Permit::new(request.caller.clone(), channel.map(|channel| channel.id), POLICY_VERSION)
}

#[cfg(test)]
mod tests;
