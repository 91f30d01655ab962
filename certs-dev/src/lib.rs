//! Mints a throw-away federation into a folder: root keys, departments with authorities, certificates and revocation
//! lists, a zone's gateway, a signed trust bundle, and specimens that must be refused.
//!
//! For: the demo, tests, and whoever tries Lianxin on one machine. Never for production: every private key lies in the
//! folder. Above: `tests/harness`, `tests/e2e`. Below: `trust`, `types`. Must never know: the gateway, the SDK, MLS groups;
//! it writes files and is done.
//!
//! [`mint`] writes what a [`FederationPlan`] says and returns a [`Minted`], which knows every path and can issue more
//! applications, revoke, and make successors of bundle, revocation lists and certificates; [`Minted::open`] finds the same in another process. The
//! layout is [`FOLDER_LAYOUT`], which is also the folder's `README.txt`.
//!
//! ```
//! use lianxin_certs_dev::{FederationPlan, mint};
//! use lianxin_types::SystemClock;
//!
//! let out = tempfile::tempdir()?;
//! let minted = mint(&FederationPlan::default(), out.path(), &SystemClock)?;
//! let app = minted.mint_app("jiwei", "app-3")?;
//! assert_eq!(app.uri.department().as_str(), "jiwei");
//! minted.set_endpoint("127.0.0.1", 40_001)?;
//! assert_eq!(minted.bundle()?.bundle.version, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authority;
mod folder;
mod issuance;
mod key;
mod leaf;
mod minted;
mod paths;
mod plan;
mod renewal;
mod rotation;
mod specimen;
mod successors;

pub use folder::{FOLDER_LAYOUT, NOT_FOR_PRODUCTION, clear};
pub use issuance::mint;
pub use key::read_signing_key;
pub use minted::Minted;
pub use paths::{AppPaths, DepartmentPaths, GatewayPaths, SpecimenPaths};
pub use plan::{DepartmentPlan, FederationPlan, OFFICER_ROLES};
pub use renewal::{renewal_request, sign_renewal};
pub use specimen::Specimen;
