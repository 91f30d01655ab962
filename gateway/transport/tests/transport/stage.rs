//! A minted federation and a listener in front of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lianxin_certs_dev::{FederationPlan, Minted, Specimen, mint};
use lianxin_transport::{
    Accepted, Bounds, FederationSource, HandshakeRefusal, Incoming, Listener, RefusalReason, ServerIdentity, ServerTls,
};
use lianxin_trust::Federation;
use lianxin_types::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

use crate::caller::Caller;

/// One listener on loopback and all that a test asks of it.
pub(crate) struct Stage {
    pub(crate) minted: Minted,
    pub(crate) address: SocketAddr,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) tls: Arc<ServerTls>,
    /// Whether the gateway has the strength for new connections.
    pub(crate) has_strength: Arc<AtomicBool>,
    federation: Arc<Mutex<Arc<Federation>>>,
    refusals: mpsc::UnboundedReceiver<HandshakeRefusal>,
    _folder: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Bounds::default(), Arc::new(SystemClock)).await
    }

    pub(crate) async fn with(bounds: Bounds, clock: Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), folder.path().join("federation").as_path(), &SystemClock)
            .expect("a federation");
        let federation = Arc::new(Mutex::new(Arc::new(minted.federation().expect("it verifies"))));
        let shared = Arc::clone(&federation);
        let source: FederationSource = Arc::new(move || Arc::clone(&shared.lock().expect("not poisoned")));
        let gateway = minted.gateway();
        let identity =
            ServerIdentity::from_pem(&read(&gateway.tls_certificate), &read(&gateway.tls_key)).expect("fits");
        let tls = Arc::new(ServerTls::new(identity, source, Arc::clone(&clock)).expect("our settings"));
        let (sender, refusals) = mpsc::unbounded_channel();
        let observer = Arc::new(move |refusal| drop(sender.send(refusal)));
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), Arc::clone(&tls), bounds, clock, observer)
            .await
            .expect("a free port");
        let address = listener.address();
        let has_strength = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&has_strength);
        let incoming = Some(listener.with_gate(Arc::new(move || gate.load(Ordering::Relaxed))).incoming());
        Self { minted, address, incoming, tls, has_strength, federation, refusals, _folder: folder }
    }

    /// Puts what lies in the federation's folder now into force.
    pub(crate) fn reload_federation(&self) {
        *self.federation.lock().expect("not poisoned") = Arc::new(self.minted.federation().expect("it verifies"));
    }

    /// The next refusal that the observer was told of.
    pub(crate) async fn refusal(&mut self) -> RefusalReason {
        let refusal = self.refusals.recv().await.expect("the listener lives");
        assert_eq!(refusal.source, Ipv4Addr::LOCALHOST);
        refusal.reason
    }

    /// The next connection that was let in; a refusal in its stead fails the test.
    pub(crate) async fn accepted(&mut self) -> Accepted {
        let incoming = self.incoming.as_mut().expect("not handed to a server");
        tokio::select! {
            accepted = incoming.next() => accepted.expect("it never ends").expect("it never errs"),
            refusal = self.refusals.recv() => panic!("refused: {refusal:?}"),
        }
    }

    /// An application of a department with its TLS certificate.
    pub(crate) fn app(&self, department: &str, name: &str) -> Caller {
        let app = self.minted.app(department, name).expect("it was minted");
        Caller::with_certificate(&read(&app.tls_certificate), &read(&app.tls_key))
    }

    /// Somebody with a certificate that must be refused.
    pub(crate) fn specimen(&self, specimen: Specimen) -> Caller {
        let paths = self.minted.specimen(specimen);
        Caller::with_certificate(&read(&paths.tls_certificate), &read(&paths.tls_key))
    }
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("certs-dev wrote it")
}
