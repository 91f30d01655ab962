//! The folder: what is written into it, and that nothing of somebody else's is written over.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// The note that marks a folder as one of ours; [`clear`] touches no folder without it.
pub const NOT_FOR_PRODUCTION: &str = "NOT-FOR-PRODUCTION.txt";

const NOT_FOR_PRODUCTION_TEXT: &str = "\
NOT FOR PRODUCTION / 仅供测试,严禁用于生产

Everything in this folder was minted by lianxin-certs-dev for demos and tests. All private keys, those of the roots and
of every department included, lie here side by side. Whoever can read this folder is everybody.

本目录由 lianxin-certs-dev 生成,仅用于演示和测试。全部私钥(含根密钥和各部门 CA 密钥)都放在一起,
任何能读取本目录的人都可以冒充任何一方。
";

/// What lies where in the folder; also its `README.txt`.
pub const FOLDER_LAYOUT: &str = "\
A throw-away Lianxin federation. Certificates are PEM, private keys PKCS#8 PEM (mode 0600). A leaf lives 30 days, an
authority a year, bundle and revocation lists 7 days. TLS keys are P-256, MLS, officers', root and gateway keys Ed25519.

NOT-FOR-PRODUCTION.txt            what this folder must never be used for
roots.json                        the root keys that an installation pins (2 of 3)
roots/root-{1,2,3}.key            their private keys
trust-bundle.note                 the signed trust bundle
bundles/<version>.note            its predecessors, once there are any
departments/<id>/ca.{pem,key}     the department's authority
  revoked.crl, revoked.crl.pem    its revocation list, DER and PEM
  before/                         its authority of before with its list, while there are two
  revoked-serials.txt             the serial numbers on it, one in hexadecimal per line
  apps/<name>/                    an application: tls.{pem,key} mls.{pem,key} uri.txt
  officers/                       {security,audit,system}.{pem,key}
  issuer/tls.{pem,key}            what its issuer shows to the gateway
gateway/                          the zone's gateway: tls.{pem,key} and removal.key promise.key log.key
                                  and removal-before.key after a rotation
specimens/                        what must be refused, each with tls.{pem,key}, some with mls.{pem,key}
  expired                         its validity is over
  not-yet-valid                   its validity begins tomorrow
  revoked                         on its department's revocation list
  wrong-ca                        an authority outside the bundle (its ca.key), under the first department's name
  other-department                the first department's authority, the second department's name
  wrong-kind-officer              an officer's certificate
  wrong-usage-mls                 an MLS certificate used for TLS
  older-bundle.note               a lower version than trust-bundle.note
  expired-bundle.note             its time is over
  under-threshold.note            signed by one root key only
";

/// Prepares an empty folder. Refuses one with anything in it.
pub(crate) fn prepare(out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let empty = fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))?.next().is_none();
    ensure!(empty, "{} is not empty; choose another folder, or --force to mint a federation anew", out.display());
    write(&out.join(NOT_FOR_PRODUCTION), NOT_FOR_PRODUCTION_TEXT.as_bytes())?;
    write(&out.join("README.txt"), FOLDER_LAYOUT.as_bytes())
}

/// Removes a federation that was minted into `out` before. A folder that is empty or not there is fine.
///
/// # Errors
/// If the folder has something in it but not the [`NOT_FOR_PRODUCTION`] note: then it is not ours to clear.
pub fn clear(out: &Path) -> anyhow::Result<()> {
    let Ok(mut entries) = fs::read_dir(out) else { return Ok(()) };
    if entries.next().is_none() {
        return Ok(());
    }
    if !out.join(NOT_FOR_PRODUCTION).is_file() {
        bail!(
            "{} holds something else than a minted federation and is left alone; choose another folder",
            out.display()
        );
    }
    for folder in ["roots", "departments", "gateway", "specimens", "bundles"] {
        remove(fs::remove_dir_all(out.join(folder))).with_context(|| format!("cannot remove {folder}"))?;
    }
    for file in ["roots.json", "trust-bundle.note", "README.txt", NOT_FOR_PRODUCTION] {
        remove(fs::remove_file(out.join(file))).with_context(|| format!("cannot remove {file}"))?;
    }
    Ok(())
}

fn remove(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Writes a file that anyone may read. A reader sees the old or the new content, never a part.
pub(crate) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    put(path, content, Mode::Public)
}

/// Writes a private key: readable by its owner only, from the first byte on.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    put(path, content, Mode::Secret)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Public,
    Secret,
}

fn put(path: &Path, content: &[u8], mode: Mode) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    remove(fs::remove_file(&name)).with_context(context)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if mode == Mode::Secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    options.open(&name).and_then(|mut file| file.write_all(content)).with_context(context)?;
    fs::rename(&name, path).with_context(context)
}
