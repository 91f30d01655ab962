//! `lianxin.certificates.v1.Certificates`.

use lianxin_operations::{Certificates, Refusal, RenewalAnswer, RenewalRequest};
use lianxin_proto::certificates::{self, v1};
use tonic::{Request, Response, Status};

use crate::Face;
use crate::answer::receipt;
use crate::status::to_status;
use crate::stop::stopped;

#[tonic::async_trait]
impl v1::certificates_server::Certificates for Face {
    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = self.caller(&request)?;
        let renew: certificates::Renew = self.parsed(&caller, "renew-certificates", request.into_inner()).await?;
        let request = RenewalRequest {
            id: renew.id,
            tls_request: renew.tls_request.into(),
            mls_certificate: renew.mls_certificate.into(),
            signature: renew.signature,
        };
        let done = self.unless_stopped(self.operations().renew_certificates(&caller, request)).await;
        let Certificates { tls, mls } = done.map_err(|refusal| to_status(&refusal))?;
        let issued = certificates::Issued { tls_certificate: tls, mls_certificate: mls };
        Ok(Response::new(issued.into()))
    }

    async fn pending(&self, request: Request<v1::PendingRequest>) -> Result<Response<v1::PendingResponse>, Status> {
        let caller = self.caller(&request)?;
        self.paced(&caller).await?;
        let renewals = self.unless_stopped(self.operations().pending_renewals(&caller)).await;
        let renewals = renewals.map_err(|refusal| to_status(&refusal))?;
        let renewal = |(name, request): (_, RenewalRequest)| certificates::PendingRenewal {
            name,
            request: certificates::Renew {
                id: request.id,
                tls_request: request.tls_request.into(),
                mls_certificate: request.mls_certificate.into(),
                signature: request.signature,
            },
        };
        let pending = certificates::Pending { renewals: renewals.into_iter().map(renewal).collect() };
        Ok(Response::new(pending.into()))
    }

    async fn answer(&self, request: Request<v1::AnswerRequest>) -> Result<Response<v1::AnswerResponse>, Status> {
        use certificates::RenewalOutcome::{Issued, Refused};
        let caller = self.caller(&request)?;
        let answer: certificates::Answer = self.parsed(&caller, "answer-renewal", request.into_inner()).await?;
        let said = match answer.outcome {
            Issued(issued) => {
                RenewalAnswer::Issued(Certificates { tls: issued.tls_certificate, mls: issued.mls_certificate })
            }
            Refused(reason) => RenewalAnswer::Refused(reason.word()),
        };
        let done = self.operations().answer_renewal(&caller, answer.name, said).await;
        done.map(|done| Response::new(receipt(done).into())).map_err(|refusal| to_status(&refusal))
    }
}

impl Face {
    /// A call that waits for somebody else does not hold up the gateway's end.
    async fn unless_stopped<T>(&self, call: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => Err(Refusal::ShuttingDown),
            done = call => done,
        }
    }
}
