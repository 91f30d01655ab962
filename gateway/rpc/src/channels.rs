//! `lianxin.channels.v1.Channels`.

use lianxin_operations::CommitBundle;
use lianxin_proto::channels::{self, v1};
use tonic::{Request, Response, Status};

use crate::Face;
use crate::answer::receipt;
use crate::status::to_status;

#[tonic::async_trait]
impl v1::channels_server::Channels for Face {
    async fn create(&self, request: Request<v1::CreateRequest>) -> Result<Response<v1::CreateResponse>, Status> {
        let caller = self.caller(&request)?;
        let create: channels::Create = self.parsed(&caller, "create-channel", request.into_inner()).await?;
        let done = self.operations().create(&caller, create.id, create.group_info, create.ratchet_tree).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn start_incarnation(
        &self,
        request: Request<v1::StartIncarnationRequest>,
    ) -> Result<Response<v1::StartIncarnationResponse>, Status> {
        let caller = self.caller(&request)?;
        let start: channels::StartIncarnation = self.parsed(&caller, "start-incarnation", request.into_inner()).await?;
        let channels::StartIncarnation { id, channel, group_info, ratchet_tree } = start;
        let done = self.operations().start_incarnation(&caller, id, channel, group_info, ratchet_tree).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let caller = self.caller(&request)?;
        let commit: channels::Commit = self.parsed(&caller, "commit", request.into_inner()).await?;
        let bundle = CommitBundle {
            commit: commit.commit,
            welcome: commit.welcome.unwrap_or_default(),
            group_info: commit.group_info,
        };
        let done = self.operations().commit(&caller, commit.id, commit.channel, bundle).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let caller = self.caller(&request)?;
        let leave: channels::Leave = self.parsed(&caller, "leave", request.into_inner()).await?;
        let done = self.operations().leave(&caller, leave.id, leave.channel, leave.proposal).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        let caller = self.caller(&request)?;
        let report: channels::Report = self.parsed(&caller, "report", request.into_inner()).await?;
        let done = self.operations().report(&caller, report.id, report.channel, report.report).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn allow_committer(
        &self,
        request: Request<v1::AllowCommitterRequest>,
    ) -> Result<Response<v1::AllowCommitterResponse>, Status> {
        let caller = self.caller(&request)?;
        let allow: channels::AllowCommitter = self.parsed(&caller, "allow-committer", request.into_inner()).await?;
        let done = self.operations().allow_committer(&caller, allow.id, allow.channel, allow.committer).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn get_welcome_tree(
        &self,
        request: Request<v1::GetWelcomeTreeRequest>,
    ) -> Result<Response<v1::GetWelcomeTreeResponse>, Status> {
        let caller = self.caller(&request)?;
        let wanted: channels::GetWelcomeTree = self.parsed(&caller, "public-state", request.into_inner()).await?;
        let tree = self.operations().welcome_tree(&caller, wanted.channel, wanted.sequence).await;
        let ratchet_tree = tree.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(channels::WelcomeTree { ratchet_tree }.into()))
    }

    async fn get_group_info(
        &self,
        request: Request<v1::GetGroupInfoRequest>,
    ) -> Result<Response<v1::GetGroupInfoResponse>, Status> {
        let caller = self.caller(&request)?;
        let wanted: channels::GetGroupInfo = self.parsed(&caller, "public-state", request.into_inner()).await?;
        let page =
            self.operations().group_info(&caller, wanted.channel).await.map_err(|refusal| to_status(&refusal))?;
        let answer = channels::GroupInfo { group_info: page.group_info, ratchet_tree: page.tree, sequence: page.head };
        Ok(Response::new(answer.into()))
    }

    async fn replace_group_info(
        &self,
        request: Request<v1::ReplaceGroupInfoRequest>,
    ) -> Result<Response<v1::ReplaceGroupInfoResponse>, Status> {
        let caller = self.caller(&request)?;
        let new: channels::ReplaceGroupInfo = self.parsed(&caller, "replace-group-info", request.into_inner()).await?;
        let done = self.operations().replace_group_info(&caller, new.id, new.channel, new.group_info).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let caller = self.caller(&request)?;
        let wanted: channels::List = self.parsed(&caller, "list", request.into_inner()).await?;
        let page = self.operations().list(&caller, wanted.after).await;
        let (found, more) = page.map_err(|refusal| to_status(&refusal))?;
        let summary = |one: lianxin_operations::ChannelSummary| channels::ChannelSummary {
            channel: one.channel,
            epoch: one.epoch,
            incarnation: one.incarnation,
            head: one.head,
            joined: one.joined,
            member_count: u32::try_from(one.member_count).unwrap_or(u32::MAX),
        };
        let channels = found.into_iter().map(summary).collect();
        Ok(Response::new(channels::ChannelPage { channels, more }.into()))
    }
}
