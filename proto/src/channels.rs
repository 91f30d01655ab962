//! Channels on the wire: requests and responses of `lianxin.channels.v1` as typed values.

use bytes::Bytes;
use lianxin_types::{ChannelId, DeviceUri, Epoch, IdempotencyId, Incarnation, LIMITS, Sequence};

use crate::fields::{self, ParseError};
use crate::receipt::{self, Receipt};

/// Generated from `api/lianxin/channels/v1/`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto files are documented"
)]
pub mod v1 {
    tonic::include_proto!("lianxin.channels.v1");
}

mod group_info;
mod incarnation;

pub use group_info::{GetGroupInfo, GroupInfo, ReplaceGroupInfo};
pub use incarnation::StartIncarnation;

/// Channels in one page of [`ChannelPage`].
pub const LIST_CHANNELS_MAX: usize = 200;

/// Start of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// MLSMessage with the GroupInfo of epoch 0.
    pub group_info: Bytes,
    /// `optional<Node> ratchet_tree<V>` of epoch 0.
    pub ratchet_tree: Bytes,
}

impl TryFrom<v1::CreateRequest> for Create {
    type Error = ParseError;

    fn try_from(wire: v1::CreateRequest) -> Result<Self, ParseError> {
        bundle("ratchet_tree", &[&wire.group_info, &wire.ratchet_tree])?;
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            group_info: fields::blob("group_info", wire.group_info, LIMITS.commit_bundle_bytes_max)?,
            ratchet_tree: fields::blob("ratchet_tree", wire.ratchet_tree, LIMITS.commit_bundle_bytes_max)?,
        })
    }
}

impl From<Create> for v1::CreateRequest {
    fn from(create: Create) -> Self {
        Self {
            idempotency_id: fields::wire(create.id.0),
            group_info: create.group_info,
            ratchet_tree: create.ratchet_tree,
        }
    }
}

/// A commit bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// MLSMessage with a PublicMessage that holds the Commit.
    pub commit: Bytes,
    /// MLSMessage with one Welcome for all who are added; `None` if nobody is.
    pub welcome: Option<Bytes>,
    /// MLSMessage with the GroupInfo of the epoch that the commit makes.
    pub group_info: Bytes,
}

impl TryFrom<v1::CommitRequest> for Commit {
    type Error = ParseError;

    fn try_from(wire: v1::CommitRequest) -> Result<Self, ParseError> {
        bundle("commit", &[&wire.commit, &wire.welcome, &wire.group_info])?;
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            commit: fields::blob("commit", wire.commit, LIMITS.commit_bundle_bytes_max)?,
            welcome: fields::optional(wire.welcome),
            group_info: fields::blob("group_info", wire.group_info, LIMITS.commit_bundle_bytes_max)?,
        })
    }
}

impl From<Commit> for v1::CommitRequest {
    fn from(commit: Commit) -> Self {
        Self {
            idempotency_id: fields::wire(commit.id.0),
            channel_id: fields::wire(commit.channel.0),
            commit: commit.commit,
            welcome: commit.welcome.unwrap_or_default(),
            group_info: commit.group_info,
        }
    }
}

/// The caller's proposal to remove itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// MLSMessage with a PublicMessage that holds the Remove proposal.
    pub proposal: Bytes,
}

impl TryFrom<v1::LeaveRequest> for Leave {
    type Error = ParseError;

    fn try_from(wire: v1::LeaveRequest) -> Result<Self, ParseError> {
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            proposal: fields::blob("proposal", wire.proposal, LIMITS.message_mls_bytes_max)?,
        })
    }
}

impl From<Leave> for v1::LeaveRequest {
    fn from(leave: Leave) -> Self {
        Self {
            idempotency_id: fields::wire(leave.id.0),
            channel_id: fields::wire(leave.channel.0),
            proposal: leave.proposal,
        }
    }
}

/// A commit that the caller cannot process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// The signed report.
    pub report: Bytes,
}

/// A report has a fixed length; what is longer need not be read.
const REPORT_BYTES_MAX: usize = 256;

impl TryFrom<v1::ReportRequest> for Report {
    type Error = ParseError;

    fn try_from(wire: v1::ReportRequest) -> Result<Self, ParseError> {
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            report: fields::blob("report", wire.report, REPORT_BYTES_MAX)?,
        })
    }
}

impl From<Report> for v1::ReportRequest {
    fn from(report: Report) -> Self {
        Self {
            idempotency_id: fields::wire(report.id.0),
            channel_id: fields::wire(report.channel.0),
            report: report.report,
        }
    }
}

/// Lets a committer that was reported commit again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowCommitter {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// The device that was reported.
    pub committer: DeviceUri,
}

impl TryFrom<v1::AllowCommitterRequest> for AllowCommitter {
    type Error = ParseError;

    fn try_from(wire: v1::AllowCommitterRequest) -> Result<Self, ParseError> {
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            committer: fields::uri("committer_uri", &wire.committer_uri)?,
        })
    }
}

impl From<AllowCommitter> for v1::AllowCommitterRequest {
    fn from(allow: AllowCommitter) -> Self {
        Self {
            idempotency_id: fields::wire(allow.id.0),
            channel_id: fields::wire(allow.channel.0),
            committer_uri: allow.committer.as_str().to_owned(),
        }
    }
}

macro_rules! answered_by_receipt {
    ($($response:ident),*) => {$(
        impl From<Receipt> for v1::$response {
            fn from(receipt: Receipt) -> Self {
                Self { receipt: Some(receipt.into()) }
            }
        }

        impl TryFrom<v1::$response> for Receipt {
            type Error = ParseError;

            fn try_from(wire: v1::$response) -> Result<Self, ParseError> {
                receipt::required(wire.receipt)
            }
        }
    )*};
}

answered_by_receipt!(
    CreateResponse,
    CommitResponse,
    LeaveResponse,
    ReportResponse,
    AllowCommitterResponse,
    StartIncarnationResponse,
    ReplaceGroupInfoResponse
);

/// Asks for the tree that goes with a Welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetWelcomeTree {
    /// The channel.
    pub channel: ChannelId,
    /// The commit that made the Welcome.
    pub sequence: Sequence,
}

impl TryFrom<v1::GetWelcomeTreeRequest> for GetWelcomeTree {
    type Error = ParseError;

    fn try_from(wire: v1::GetWelcomeTreeRequest) -> Result<Self, ParseError> {
        let channel = fields::channel_id(&wire.channel_id)?;
        Ok(Self { channel, sequence: fields::position("sequence", wire.sequence)? })
    }
}

impl From<GetWelcomeTree> for v1::GetWelcomeTreeRequest {
    fn from(get: GetWelcomeTree) -> Self {
        Self { channel_id: fields::wire(get.channel.0), sequence: get.sequence.0 }
    }
}

/// The tree that goes with a Welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WelcomeTree {
    /// `optional<Node> ratchet_tree<V>`.
    pub ratchet_tree: Bytes,
}

impl TryFrom<v1::GetWelcomeTreeResponse> for WelcomeTree {
    type Error = ParseError;

    fn try_from(wire: v1::GetWelcomeTreeResponse) -> Result<Self, ParseError> {
        Ok(Self { ratchet_tree: fields::blob("ratchet_tree", wire.ratchet_tree, LIMITS.commit_bundle_bytes_max)? })
    }
}

impl From<WelcomeTree> for v1::GetWelcomeTreeResponse {
    fn from(tree: WelcomeTree) -> Self {
        Self { ratchet_tree: tree.ratchet_tree }
    }
}

/// Asks for a page of the caller's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct List {
    /// Only channels behind this id; `None` for the first page.
    pub after: Option<ChannelId>,
}

impl TryFrom<v1::ListRequest> for List {
    type Error = ParseError;

    fn try_from(wire: v1::ListRequest) -> Result<Self, ParseError> {
        let after = fields::optional(wire.after_channel_id);
        Ok(Self { after: after.map(|id| fields::exact("after_channel_id", &id)).transpose()? })
    }
}

impl From<List> for v1::ListRequest {
    fn from(list: List) -> Self {
        Self { after_channel_id: list.after.map(|id| fields::wire(id.0)).unwrap_or_default() }
    }
}

/// A page of the caller's channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPage {
    /// Ascending by channel id, at most [`LIST_CHANNELS_MAX`].
    pub channels: Vec<ChannelSummary>,
    /// Whether another page follows.
    pub more: bool,
}

/// One channel as the gateway sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSummary {
    /// The channel.
    pub channel: ChannelId,
    /// The carrying group's current epoch.
    pub epoch: Epoch,
    /// The carrying group's number.
    pub incarnation: Incarnation,
    /// Sequence of the last event.
    pub head: Sequence,
    /// Sequence of the commit that seated the caller; 1 for the creator.
    pub joined: Sequence,
    /// Members now.
    pub member_count: u32,
}

impl TryFrom<v1::ListResponse> for ChannelPage {
    type Error = ParseError;

    fn try_from(wire: v1::ListResponse) -> Result<Self, ParseError> {
        fields::at_most("channels", wire.channels.len(), LIST_CHANNELS_MAX)?;
        let channels = wire.channels.into_iter().map(ChannelSummary::try_from).collect::<Result<Vec<_>, _>>()?;
        if !channels.is_sorted_by(|one, next| one.channel < next.channel) {
            return Err(ParseError::Malformed { field: "channels" });
        }
        Ok(Self { channels, more: wire.more })
    }
}

impl From<ChannelPage> for v1::ListResponse {
    fn from(page: ChannelPage) -> Self {
        Self { channels: page.channels.into_iter().map(Into::into).collect(), more: page.more }
    }
}

impl TryFrom<v1::ChannelSummary> for ChannelSummary {
    type Error = ParseError;

    fn try_from(wire: v1::ChannelSummary) -> Result<Self, ParseError> {
        Ok(Self {
            channel: fields::channel_id(&wire.channel_id)?,
            epoch: Epoch(wire.epoch),
            incarnation: Incarnation(wire.incarnation),
            head: fields::position("head_sequence", wire.head_sequence)?,
            joined: fields::position("joined_sequence", wire.joined_sequence)?,
            member_count: wire.member_count,
        })
    }
}

impl From<ChannelSummary> for v1::ChannelSummary {
    fn from(summary: ChannelSummary) -> Self {
        Self {
            channel_id: fields::wire(summary.channel.0),
            epoch: summary.epoch.0,
            incarnation: summary.incarnation.0,
            head_sequence: summary.head.0,
            joined_sequence: summary.joined.0,
            member_count: summary.member_count,
        }
    }
}

/// The parts of a bundle are bounded together.
fn bundle(field: &'static str, parts: &[&Bytes]) -> Result<(), ParseError> {
    fields::at_most(field, parts.iter().map(|part| part.len()).sum(), LIMITS.commit_bundle_bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::receipt;

    const LIMIT: usize = LIMITS.commit_bundle_bytes_max;

    fn commit() -> Commit {
        Commit {
            id: IdempotencyId([1; 16]),
            channel: ChannelId([2; 16]),
            commit: Bytes::from_static(b"commit"),
            welcome: Some(Bytes::from_static(b"welcome")),
            group_info: Bytes::from_static(b"info"),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let wire = v1::CommitRequest::from(commit());
        let without = |change: fn(&mut v1::CommitRequest)| {
            let mut wire = wire.clone();
            change(&mut wire);
            Commit::try_from(wire).expect_err("something is missing").field()
        };
        assert_eq!(without(|wire| wire.idempotency_id.clear()), "idempotency_id");
        assert_eq!(without(|wire| wire.channel_id.clear()), "channel_id");
        assert_eq!(without(|wire| wire.commit.clear()), "commit");
        assert_eq!(without(|wire| wire.group_info.clear()), "group_info");
        let tree = v1::CreateRequest { ratchet_tree: Bytes::new(), ..create(8).into() };
        assert_eq!(Create::try_from(tree), Err(ParseError::Missing { field: "ratchet_tree" }));
        assert_eq!(Receipt::try_from(v1::CommitResponse { receipt: None }).map_err(|e| e.field()), Err("receipt"));
        let first = v1::GetWelcomeTreeRequest { channel_id: Bytes::from_static(&[1; 16]), sequence: 0 };
        assert_eq!(GetWelcomeTree::try_from(first), Err(ParseError::Missing { field: "sequence" }));
    }

    fn create(bytes: usize) -> Create {
        Create {
            id: IdempotencyId([1; 16]),
            group_info: Bytes::from_static(b"info"),
            ratchet_tree: vec![0; bytes - 4].into(),
        }
    }

    #[test]
    fn a_bundle_stands_at_its_limit_and_not_one_over() {
        let over = |found| ParseError::TooLarge { field: "commit", limit: LIMIT as u64, found };
        let sized = |bytes: usize| Commit { welcome: Some(vec![0; bytes - 10].into()), ..commit() };
        assert_eq!(Commit::try_from(v1::CommitRequest::from(sized(LIMIT + 1))), Err(over(LIMIT as u64 + 1)));
        assert_eq!(Commit::try_from(v1::CommitRequest::from(sized(LIMIT))), Ok(sized(LIMIT)));
        assert!(Create::try_from(v1::CreateRequest::from(create(LIMIT + 1))).is_err());
        assert_eq!(Create::try_from(v1::CreateRequest::from(create(LIMIT))), Ok(create(LIMIT)));
        let leave =
            |bytes| Leave { id: IdempotencyId([1; 16]), channel: ChannelId([2; 16]), proposal: vec![0; bytes].into() };
        let at = LIMITS.message_mls_bytes_max;
        assert!(Leave::try_from(v1::LeaveRequest::from(leave(at + 1))).is_err());
        assert_eq!(Leave::try_from(v1::LeaveRequest::from(leave(at))), Ok(leave(at)));
    }

    #[test]
    fn every_value_comes_back_from_the_wire() {
        assert_eq!(Commit::try_from(v1::CommitRequest::from(commit())), Ok(commit()));
        let alone = Commit { welcome: None, ..commit() };
        assert_eq!(Commit::try_from(v1::CommitRequest::from(alone.clone())), Ok(alone));
        assert_eq!(Receipt::try_from(v1::CreateResponse::from(receipt())), Ok(receipt()));
        assert_eq!(Receipt::try_from(v1::LeaveResponse::from(receipt())), Ok(receipt()));
        let (id, channel) = (IdempotencyId([1; 16]), ChannelId([2; 16]));
        let report = Report { id, channel, report: Bytes::from_static(b"report") };
        assert_eq!(Report::try_from(v1::ReportRequest::from(report.clone())), Ok(report.clone()));
        let long = Report { report: vec![0; REPORT_BYTES_MAX + 1].into(), ..report };
        assert!(Report::try_from(v1::ReportRequest::from(long)).is_err());
        let committer = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        let allow = AllowCommitter { id, channel, committer };
        let wire = v1::AllowCommitterRequest::from(allow.clone());
        assert_eq!(AllowCommitter::try_from(wire.clone()), Ok(allow));
        let nobody = v1::AllowCommitterRequest { committer_uri: String::new(), ..wire };
        assert_eq!(AllowCommitter::try_from(nobody), Err(ParseError::Missing { field: "committer_uri" }));
        let get = GetWelcomeTree { channel: ChannelId([2; 16]), sequence: Sequence(3) };
        assert_eq!(GetWelcomeTree::try_from(v1::GetWelcomeTreeRequest::from(get)), Ok(get));
        let tree = WelcomeTree { ratchet_tree: Bytes::from_static(b"tree") };
        assert_eq!(WelcomeTree::try_from(v1::GetWelcomeTreeResponse::from(tree.clone())), Ok(tree));
        let get = GetGroupInfo { channel: ChannelId([2; 16]) };
        assert_eq!(GetGroupInfo::try_from(v1::GetGroupInfoRequest::from(get)), Ok(get));
        let info = GroupInfo {
            group_info: Bytes::from_static(b"info"),
            ratchet_tree: Bytes::from_static(b"tree"),
            sequence: Sequence(3),
        };
        assert_eq!(GroupInfo::try_from(v1::GetGroupInfoResponse::from(info.clone())), Ok(info));
        for list in [List { after: None }, List { after: Some(ChannelId([2; 16])) }] {
            assert_eq!(List::try_from(v1::ListRequest::from(list)), Ok(list));
        }
    }

    fn page(ids: impl IntoIterator<Item = u8>) -> ChannelPage {
        let summary = |id| ChannelSummary {
            channel: ChannelId([id; 16]),
            epoch: Epoch(4),
            incarnation: Incarnation(0),
            head: Sequence(9),
            joined: Sequence(1),
            member_count: 3,
        };
        ChannelPage { channels: ids.into_iter().map(summary).collect(), more: true }
    }

    #[test]
    fn a_page_is_bounded_and_in_order() {
        let parse = |page: ChannelPage| ChannelPage::try_from(v1::ListResponse::from(page));
        assert!(matches!(parse(page(0..=200)), Err(ParseError::TooLarge { limit: 200, found: 201, .. })));
        assert_eq!(parse(page(0..200)), Ok(page(0..200)));
        assert_eq!(parse(page([2, 1])), Err(ParseError::Malformed { field: "channels" }));
        assert_eq!(parse(page([1, 1])), Err(ParseError::Malformed { field: "channels" }));
    }
}
