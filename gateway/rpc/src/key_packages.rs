//! `lianxin.key_packages.v1.KeyPackages`.

use lianxin_proto::key_packages::{self, v1};
use tonic::{Request, Response, Status};

use crate::Face;
use crate::answer::receipt;
use crate::status::to_status;

#[tonic::async_trait]
impl v1::key_packages_server::KeyPackages for Face {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let caller = self.caller(&request)?;
        let new: key_packages::Publish = self.parsed(&caller, "publish-key-packages", request.into_inner()).await?;
        let done = self.operations().publish_key_packages(&caller, new.id, new.key_packages, new.last_resort).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }

    async fn claim(&self, request: Request<v1::ClaimRequest>) -> Result<Response<v1::ClaimResponse>, Status> {
        let caller = self.caller(&request)?;
        let claim: key_packages::Claim = self.parsed(&caller, "claim-key-packages", request.into_inner()).await?;
        let done = self.operations().claim_key_packages(&caller, claim.id, claim.channel, claim.owners).await;
        let (key_packages, done) = done.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(key_packages::Claimed { key_packages, receipt: receipt(done) }.into()))
    }

    async fn count(&self, request: Request<v1::CountRequest>) -> Result<Response<v1::CountResponse>, Status> {
        let caller = self.caller(&request)?;
        self.paced(&caller).await?;
        let counted = self.operations().count_key_packages(&caller).await.map_err(|refusal| to_status(&refusal))?;
        let (one_time, last_resort) = counted;
        let one_time = u32::try_from(one_time).unwrap_or(u32::MAX);
        Ok(Response::new(key_packages::Count { one_time, last_resort }.into()))
    }
}
