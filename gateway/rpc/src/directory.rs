//! `lianxin.directory.v1.Directory`.

use lianxin_operations::EarlierBundles;
use lianxin_proto::directory::{self, v1};
use tonic::{Request, Response, Status};

use crate::Face;
use crate::status::to_status;

#[tonic::async_trait]
impl v1::directory_server::Directory for Face {
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Result<Response<v1::HelloResponse>, Status> {
        let caller = self.caller(&request)?;
        let hello: directory::Hello = self.parsed(&caller, "hello", request.into_inner()).await?;
        let agreed = self.operations().hello(&caller, hello.protocol_version).await;
        let agreed = agreed.map_err(|refusal| to_status(&refusal))?;
        tracing::info!(caller = ?caller.uri, client = hello.client, "session opened");
        let answer = directory::HelloAnswer {
            protocol_version: agreed.protocol_version,
            capabilities: Vec::new(),
            zone: self.operations().zone().clone(),
            caller: caller.uri,
            bundle_version: agreed.bundle_version,
            bundle_digest: agreed.bundle_digest,
            gateway_time: agreed.now,
            limits: directory::Limit::table(),
        };
        Ok(Response::new(answer.into()))
    }

    async fn get_trust(&self, request: Request<v1::GetTrustRequest>) -> Result<Response<v1::GetTrustResponse>, Status> {
        let caller = self.caller(&request)?;
        self.paced(&caller).await?;
        let directory::GetTrust { known_version } = request.into_inner().into();
        let bounds = EarlierBundles {
            after: known_version,
            count_max: directory::EARLIER_BUNDLES_MAX,
            bytes_max: directory::EARLIER_BUNDLES_BYTES_MAX,
        };
        let trust = self.operations().trust(&caller, bounds).await.map_err(|refusal| to_status(&refusal))?;
        let answer = directory::Trust {
            trust_bundle: trust.trust_bundle,
            revocation_lists: trust.revocation_lists,
            earlier_bundles: trust.earlier_bundles,
        };
        Ok(Response::new(answer.into()))
    }
}
