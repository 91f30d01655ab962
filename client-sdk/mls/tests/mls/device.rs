//! A device: its folder, its key, and the engine that is made anew for every call.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lianxin_keystore::{Keystore, StateKey, Transaction};
use lianxin_mls::{ChannelView, Encrypted, LogEvent, Mls, MlsError, MlsIdentity, Processed};
use lianxin_trust::Federation;
use lianxin_types::{
    ChannelId, Clock, DeviceUri, IdempotencyId, Monotonic, Random as _, SystemClock, SystemRandom, Timestamp,
};

use crate::federation::office;

pub(crate) struct Device {
    pub(crate) uri: DeviceUri,
    pub(crate) identity: MlsIdentity,
    /// What it knows.
    pub(crate) federation: Arc<Federation>,
    /// How far its clock is ahead of the machine's.
    pub(crate) ahead: Duration,
    folder: tempfile::TempDir,
    key: StateKey,
}

/// The machine's clock, so far ahead.
#[derive(Debug)]
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.0)
    }

    fn monotonic(&self) -> Monotonic {
        SystemClock.monotonic()
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        SystemClock.sleep_until(deadline)
    }
}

impl Device {
    pub(crate) fn app(department: &str, name: &str) -> Self {
        let (uri, identity) = office().app(department, name);
        Self::with(uri, identity)
    }

    pub(crate) fn with(uri: DeviceUri, identity: MlsIdentity) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let federation = Arc::clone(&office().federation);
        let (key, ahead) = (StateKey::generate(&SystemRandom), Duration::ZERO);
        Self { uri, identity, federation, ahead, folder, key }
    }

    /// Opens the keystore, makes an engine, runs `f` in one transaction, closes everything.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mls, &Transaction<'_>, &Federation) -> Result<T, MlsError> + Send + 'static,
    ) -> Result<T, MlsError> {
        let keystore = Keystore::open(&self.folder.path().join("state"), &self.key, Arc::new(SystemRandom))?;
        let clock = Arc::new(Ahead(self.ahead));
        let engine = Mls::new(self.identity.clone(), self.uri.clone(), clock, Arc::new(SystemRandom))?;
        let federation = Arc::clone(&self.federation);
        keystore.transaction_blocking(move |tx| f(&engine, tx, &federation))
    }

    /// A copy of everything that the device has stored, as a backup makes it.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a temporary folder");
        copy_files(&self.folder.path().join("state"), copy.path());
        copy
    }

    /// Puts a copy in the place of what is stored.
    pub(crate) fn restore(&self, copy: &tempfile::TempDir) {
        let state = self.folder.path().join("state");
        std::fs::remove_dir_all(&state).expect("ours");
        std::fs::create_dir(&state).expect("its parent is there");
        copy_files(copy.path(), &state);
    }

    pub(crate) fn key_package(&self) -> Vec<u8> {
        let made = self.run(|mls, tx, federation| mls.key_packages(tx, federation, 1, false));
        made.expect("a key package").one_time.remove(0)
    }

    pub(crate) fn process(&self, event: &LogEvent) -> Result<Processed, MlsError> {
        let event = event.clone();
        self.run(move |mls, tx, federation| mls.process(tx, federation, &event))
    }

    pub(crate) fn encrypt(&self, channel: ChannelId, body: &[u8]) -> Result<Encrypted, MlsError> {
        self.encrypt_as(channel, random_id(), body)
    }

    pub(crate) fn encrypt_as(
        &self,
        channel: ChannelId,
        intent: IdempotencyId,
        body: &[u8],
    ) -> Result<Encrypted, MlsError> {
        let body = body.to_vec();
        self.run(move |mls, tx, federation| mls.encrypt(tx, federation, channel, intent, &body))
    }

    pub(crate) fn view(&self, channel: ChannelId) -> Option<ChannelView> {
        self.run(move |mls, tx, _| mls.channel(tx, channel)).expect("a readable state")
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("readable");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

pub(crate) fn random_id() -> IdempotencyId {
    let mut bytes = [0; 16];
    SystemRandom.fill(&mut bytes);
    IdempotencyId(bytes)
}
