//! The calls with one answer. Each has a bound in time; who drops a call in flight does not know its outcome.

use lianxin_proto::certificates::v1::certificates_client::CertificatesClient;
use lianxin_proto::certificates::{Answer, Issued, Pending, Renew, v1 as certificates};
use lianxin_proto::channels::v1::channels_client::ChannelsClient;
use lianxin_proto::channels::{AllowCommitter, Report, StartIncarnation, WelcomeTree, v1 as channels};
use lianxin_proto::channels::{
    ChannelPage, Commit, Create, GetGroupInfo, GetWelcomeTree, GroupInfo, Leave, List, ReplaceGroupInfo,
};
use lianxin_proto::directory::v1::directory_client::DirectoryClient;
use lianxin_proto::directory::{GetTrust, Hello, HelloAnswer, Trust, v1 as directory};
use lianxin_proto::key_packages::v1::key_packages_client::KeyPackagesClient;
use lianxin_proto::key_packages::{Claim, Claimed, Count, Publish, v1 as key_packages};
use lianxin_proto::messages::v1::messages_client::MessagesClient;
use lianxin_proto::messages::{History, HistoryPage, v1 as messages};
use lianxin_proto::{ParseError, Receipt};

use crate::{CallError, Connection};

/// Longest answer: a full page or bundle of 1 MiB and what is around it; the trust bundle with its lists.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $client:ident . $call:ident ($request:ty => $wire:ty) -> $answer:ty;)*) => {
        impl Connection {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`CallError`]; the reasons of refusals stand in the contract beside the call.
            pub async fn $name(&self, request: $request) -> Result<$answer, CallError> {
                let mut client = $client::new(self.line.clone())
                    .max_decoding_message_size(ANSWER_BYTES_MAX);
                self.bounded(async move {
                    let wire = client.$call(<$wire>::from(request)).await?.into_inner();
                    <$answer>::try_from(wire).map_err(|error: ParseError| CallError::BadAnswer(error))
                })
                .await
            }
        )*}
    };
}

calls! {
    /// Exchanges versions; [`Connection::connect`] has done it.
    hello: DirectoryClient.hello(Hello => directory::HelloRequest) -> HelloAnswer;
    /// The trust bundle and revocation lists in use, and the bundles that the caller has missed: as signed and not yet verified.
    trust: DirectoryClient.get_trust(GetTrust => directory::GetTrustRequest) -> Trust;
    /// Starts a channel with the caller as its only member.
    create: ChannelsClient.create(Create => channels::CreateRequest) -> Receipt;
    /// Changes the group.
    commit: ChannelsClient.commit(Commit => channels::CommitRequest) -> Receipt;
    /// Puts the caller's proposal to remove itself into the log.
    leave: ChannelsClient.leave(Leave => channels::LeaveRequest) -> Receipt;
    /// Puts a member's report of a commit into the log.
    report: ChannelsClient.report(Report => channels::ReportRequest) -> Receipt;
    /// Lets a committer of the caller's department commit again.
    allow_committer: ChannelsClient.allow_committer(AllowCommitter => channels::AllowCommitterRequest) -> Receipt;
    /// Starts the group that carries a channel on.
    start_incarnation: ChannelsClient.start_incarnation(StartIncarnation => channels::StartIncarnationRequest) -> Receipt;
    /// The public tree that goes with a Welcome.
    welcome_tree: ChannelsClient.get_welcome_tree(GetWelcomeTree => channels::GetWelcomeTreeRequest) -> WelcomeTree;
    /// The public part of a channel's current epoch; audited.
    group_info: ChannelsClient.get_group_info(GetGroupInfo => channels::GetGroupInfoRequest) -> GroupInfo;
    /// Puts another GroupInfo of the current epoch in the place of the one that is served.
    replace_group_info:
        ChannelsClient.replace_group_info(ReplaceGroupInfo => channels::ReplaceGroupInfoRequest) -> Receipt;
    /// A page of the caller's channels.
    list: ChannelsClient.list(List => channels::ListRequest) -> ChannelPage;
    /// Stores key packages of the caller.
    publish: KeyPackagesClient.publish(Publish => key_packages::PublishRequest) -> Receipt;
    /// Takes one key package of each owner for one channel; all or none.
    claim: KeyPackagesClient.claim(Claim => key_packages::ClaimRequest) -> Claimed;
    /// Asks the caller's department for its next certificates, which are as they came and not yet verified.
    renew: CertificatesClient.renew(Renew => certificates::RenewRequest) -> Issued;
    /// An issuer's answer to what a device of its department asks for.
    answer_renewal: CertificatesClient.answer(Answer => certificates::AnswerRequest) -> Receipt;
    /// One page of a channel's log.
    history: MessagesClient.history(History => messages::HistoryRequest) -> HistoryPage;
}

impl Connection {
    /// What devices of the caller's department ask for; the caller is its issuer. Waits for the first of it, up to 20 seconds.
    /// As it came and not yet verified.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn pending_renewals(&self) -> Result<Pending, CallError> {
        let mut client = CertificatesClient::new(self.line.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        self.bounded(async move {
            let wire = client.pending(certificates::PendingRequest {}).await?.into_inner();
            Pending::try_from(wire).map_err(CallError::BadAnswer)
        })
        .await
    }

    /// What is left of the caller's key packages.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn count(&self) -> Result<Count, CallError> {
        let mut client = KeyPackagesClient::new(self.line.clone());
        self.bounded(async move { Ok(client.count(key_packages::CountRequest {}).await?.into_inner().into()) }).await
    }
}
