//! sled under the conformance suite, and the zone inspected after every story.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use lianxin_store::conformance::{Home, run};
use lianxin_store::{Engine, Space, StoreError, ZoneOptions, ZoneStore};
use lianxin_store_sled::{RealDisk, SledEngine, check, open_with};
use lianxin_types::Clock;
use tempfile::TempDir;

struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary folder") }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("zone")
    }
}

impl Home for Place {
    fn open(&self, clock: Arc<dyn Clock>, options: ZoneOptions) -> Result<Arc<dyn ZoneStore>, StoreError> {
        open_with(&self.folder(), "hangzhou".parse().expect("well formed"), clock, Arc::new(RealDisk), options)
    }

    fn lose_state(&self) {
        fs::remove_dir_all(self.folder().join("state")).expect("there is a state");
    }

    fn state_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let engine = SledEngine::open(&self.folder(), &"hangzhou".parse().expect("well formed"), Arc::new(RealDisk))
            .expect("the folder opens");
        let mut rows = Vec::new();
        let visit = &mut |row_key: &[u8], value: &[u8]| {
            rows.push((row_key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        engine.scan(Space::State, &[], &[], visit).expect("readable");
        rows
    }

    fn inspect(&self) -> Result<(), String> {
        let zone = "hangzhou".parse().expect("well formed");
        let inspection = check(&self.folder(), &zone, self.root.path(), &mut |_| ()).expect("nobody holds it");
        if inspection.is_clean() { Ok(()) } else { Err(format!("{:#?}", inspection.findings)) }
    }
}

#[test]
fn sled_conforms() {
    run(Place::new);
}
