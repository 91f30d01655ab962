//! A gateway for one story: minted federation, real listener, real store, all in a folder that goes away.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lianxin_certs_dev::{AppPaths, FederationPlan, Minted, Specimen, mint};
use lianxin_connection::{ConnectError, Connection, Target, TlsIdentity};
use lianxin_gateway::{Config, Gateway, ReloadError, ReloadHandle, Reloaded, StatisticsView};
use lianxin_store::{AuditRecord, StoreError, ZoneStore};
use lianxin_trust::{Endpoint, Usage};
use lianxin_types::{Clock, Monotonic, SystemClock, Timestamp, ZoneId};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The system's clock, which a story may move on.
#[derive(Debug, Default)]
pub(crate) struct MovedClock {
    /// So many seconds.
    ahead: AtomicU64,
}

impl MovedClock {
    /// It goes on `later`.
    pub(crate) fn advance(&self, later: Duration) {
        self.ahead.fetch_add(later.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Duration::from_secs(self.ahead.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Monotonic {
        SystemClock.monotonic()
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        SystemClock.sleep_until(deadline)
    }
}

/// A gateway that serves.
pub(crate) struct Zone {
    pub(crate) minted: Minted,
    /// What the gateway and the zone's clients go by.
    pub(crate) clock: Arc<MovedClock>,
    folder: tempfile::TempDir,
    address: SocketAddr,
    reload: ReloadHandle,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    statistics: Box<dyn Fn() -> StatisticsView + Send + Sync>,
}

/// What is left of a zone whose gateway has stopped.
pub(crate) struct Closed {
    pub(crate) store: Arc<dyn ZoneStore>,
    _folder: tempfile::TempDir,
}

impl Zone {
    pub(crate) async fn start() -> Self {
        Self::start_with(FederationPlan::default()).await
    }

    pub(crate) async fn start_with(plan: FederationPlan) -> Self {
        Self::start_configured(plan, "").await
    }

    /// A gateway whose bounds are these lines of the configuration's section `[strength]`.
    pub(crate) async fn start_with_strength(strength: &str) -> Self {
        Self::start_configured(FederationPlan::default(), &format!("[strength]\n{strength}")).await
    }

    async fn start_configured(plan: FederationPlan, more: &str) -> Self {
        show_logs();
        let clock: Arc<MovedClock> = Arc::default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = free_address();
        let plan = FederationPlan { port: address.port(), ..plan };
        let minted = mint(&plan, &folder.path().join("federation"), &*clock).expect("mints");
        let config = configuration(&minted, folder.path(), address, more);
        let gateway = Gateway::open_by(&config, clock.clone()).await.expect("opens");
        let (reload, operations) = (gateway.reload_handle(), gateway.operations().clone());
        let (stop, served) = serve(gateway);
        let statistics = Box::new(move || operations.statistics());
        Self { minted, clock, folder, address, reload, stop, served, statistics }
    }

    /// The gateway's configuration file, for a story to change.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder("gateway.toml")
    }

    /// Has the gateway read its configuration and files again: what lies in the federation's folder now comes into force.
    pub(crate) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        crate::talk::soon("a reload", self.reload.reload()).await
    }

    /// The gateway's counters.
    pub(crate) fn statistics(&self) -> StatisticsView {
        (self.statistics)()
    }

    /// A folder of the story's own, for SDK states and the like.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the gateway in order and starts it again over the same zone, with the files as they are now.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(|_zone| ()).await
    }

    /// As [`Zone::restart`], with something done to the zone's folder between.
    pub(crate) async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        let Self { minted, clock, folder, address, reload: _, stop, served, statistics } = self;
        stop.send(()).expect("the gateway listens");
        served.await.expect("the gateway stops");
        drop(statistics);
        // It lets go of its zone with the last of its connections, a moment after it stopped.
        let stored = folder.path().join("data/zone");
        drop(open_store(&stored));
        change(&stored);
        let config = Config::read(&folder.path().join("gateway.toml")).expect("a good configuration");
        let gateway = Gateway::open_by(&config, clock.clone()).await.expect("opens");
        let (reload, operations) = (gateway.reload_handle(), gateway.operations().clone());
        let (stop, served) = serve(gateway);
        let statistics = Box::new(move || operations.statistics());
        Self { minted, clock, folder, address, reload, stop, served, statistics }
    }

    /// Revokes the certificate of this place of an application, from now on.
    pub(crate) fn revoke(&self, certificate: &Path, usage: Usage) {
        let now = SystemClock.now();
        let der = CertificateDer::from_pem_file(certificate).expect("minted");
        let federation = self.minted.federation().expect("verifies");
        let identity = federation.identify_ignoring_expiry(&[&der], usage, now).expect("one of the federation's");
        self.minted.at(now).revoke(identity.uri.department().as_str(), &identity.serial).expect("revoked");
    }

    /// Stops the gateway in order and opens what it left.
    pub(crate) async fn close(self) -> Closed {
        self.stop.send(()).expect("the gateway listens");
        self.served.await.expect("the gateway stops");
        drop(self.statistics);
        let store = open_store(&self.folder.path().join("data/zone"));
        Closed { store, _folder: self.folder }
    }

    pub(crate) fn app(&self, department: &str, name: &str) -> AppPaths {
        self.minted.app(department, name).expect("minted")
    }

    /// A connection as this application.
    pub(crate) async fn connect(&self, app: &AppPaths) -> Result<Connection, ConnectError> {
        self.connect_with(&app.tls_certificate, &app.tls_key).await
    }

    /// A connection as a department's issuer.
    pub(crate) async fn connect_issuer(&self, department: &str) -> Connection {
        let paths = self.minted.department(department);
        self.connect_with(&paths.issuer_certificate, &paths.issuer_key).await.expect("connects")
    }

    /// A connection with the certificate of a specimen.
    pub(crate) async fn connect_as(&self, specimen: Specimen) -> Result<Connection, ConnectError> {
        let paths = self.minted.specimen(specimen);
        self.connect_with(&paths.tls_certificate, &paths.tls_key).await
    }

    async fn connect_with(&self, certificate: &Path, key: &Path) -> Result<Connection, ConnectError> {
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: self.address.port() };
        connect_to(&self.minted, certificate, key, endpoint).await
    }
}

/// A connection to the gateway of a minted federation, with any certificate.
pub(crate) async fn connect_to(
    minted: &Minted,
    certificate: &Path,
    key: &Path,
    address: Endpoint,
) -> Result<Connection, ConnectError> {
    let read = |path| std::fs::read(path).expect("minted");
    let identity = TlsIdentity::from_pem(&read(certificate), &read(key)).expect("a certificate and its key");
    let federation = Arc::new(minted.federation().expect("verifies"));
    let target = Target { zone: zone_id(), operator: "jiwei".parse().expect("well formed"), address };
    let (connection, _) =
        Connection::connect(&target, &identity, federation, Arc::new(SystemClock), "lianxin-e2e").await?;
    Ok(connection)
}

impl Closed {
    /// The whole audit log, after checking that it is dense and that every leaf follows from its parts.
    pub(crate) fn audit(&self) -> Vec<AuditRecord> {
        audit(&*self.store)
    }

    /// What the gateway left.
    pub(crate) fn store(&self) -> &dyn ZoneStore {
        &*self.store
    }

    /// The JCS bodies of all shared parts, in order.
    pub(crate) fn shared_bodies(&self) -> Vec<serde_json::Value> {
        let parts = self.audit().into_iter().map(|record| record.parts[0].body.clone());
        parts.map(|body| serde_json::from_slice(&body).expect("JSON")).collect()
    }
}

/// As [`Closed::audit`].
pub(crate) fn audit(store: &dyn ZoneStore) -> Vec<AuditRecord> {
    let mut records: Vec<AuditRecord> = Vec::new();
    loop {
        let page = store.audit_read(records.len() as u64, 500).expect("readable");
        if page.is_empty() {
            break;
        }
        records.extend(page);
    }
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.leaf_index, index as u64);
        check_leaf(record);
    }
    records
}

/// The commitment in the leaf is recomputed from what is stored beside it.
fn check_leaf(record: &AuditRecord) {
    use lianxin_tlog::{Leaf, leaf_commitment, part_commitment};
    let commitments: Vec<_> = record
        .parts
        .iter()
        .map(|part| {
            let body_hash = lianxin_types::Digest::sha256(&part.body);
            part_commitment(&part.salt, &part.audience, &part.header, &body_hash)
        })
        .collect();
    let leaf = Leaf::from_bytes(&record.leaf).expect("a leaf");
    assert_eq!(leaf.commitment, leaf_commitment(&commitments), "leaf {}", record.leaf_index);
}

fn zone_id() -> ZoneId {
    "cn-zj-1".parse().expect("well formed")
}

/// Reads every record of a stopped gateway's zone: everything must be as it was written.
pub(crate) fn check_store(zone: &Path, scratch: &Path) {
    let inspection = lianxin_store_sled::check(zone, &zone_id(), scratch, &mut |_| ()).expect("nobody holds it");
    assert!(inspection.is_clean(), "{:#?}", inspection.findings);
}

/// Opens the store of a stopped gateway; nothing may be left in a `blobs` folder (PROTOCOL 10).
pub(crate) fn open_store(zone: &Path) -> Arc<dyn ZoneStore> {
    let blobs = lianxin_store_sled::blob_files(zone).expect("readable");
    assert!(blobs.is_empty(), "sled wrote values outside its log: {blobs:?}");
    let patience = SystemClock.now().plus(Duration::from_secs(30));
    loop {
        let disk = Arc::new(lianxin_store_sled::RealDisk);
        match lianxin_store_sled::open(zone, zone_id(), Arc::new(SystemClock), disk) {
            Ok(store) => return store,
            // A gateway in this process lets go of its zone with the last of its connections, a moment after it stopped.
            Err(StoreError::Locked { .. }) if SystemClock.now() < patience => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            Err(error) => panic!("the zone does not open: {error:?}"),
        }
    }
}

fn configuration(minted: &Minted, folder: &Path, address: SocketAddr, more: &str) -> Config {
    let lists: Vec<_> = minted.revocation_list_files().expect("minted");
    let lists: Vec<_> = lists.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let text = format!(
        r#"
            zone = "cn-zj-1"
            listen = "{address}"
            [tls]
            certificate = "federation/gateway/tls.pem"
            key = "federation/gateway/tls.key"
            [trust]
            roots = "federation/roots.json"
            bundle = "federation/trust-bundle.note"
            revocation_lists = [{lists}]
            removal_key = "federation/gateway/removal.key"
            [store]
            engine = "sled"
            folder = "data/zone"
            free_bytes_min = 16777216
            reserve_bytes = 4194304
            [audit]
            pseudonym_key = "keys/pseudonym.key"
            {more}
        "#,
        lists = lists.join(", "),
    );
    let file = folder.join("gateway.toml");
    std::fs::write(&file, text).expect("written");
    Config::read(&file).expect("a good configuration")
}

fn serve(gateway: Gateway) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let told = async move {
            let _dropped_or_told = stopped.await;
        };
        gateway.serve(told).await.expect("serves");
    });
    (stop, served)
}

/// `LIANXIN_LOG=debug` shows the gateway's and the SDKs' log beside a failing story.
fn show_logs() {
    if let Ok(filter) = std::env::var("LIANXIN_LOG") {
        // A second story of the same run finds the subscriber in place.
        let _placed = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    }
}

fn free_address() -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, lianxin_harness::Gateway::free_port().expect("a free port")).into()
}
