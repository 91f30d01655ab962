//! Who does not get in, and what they are told.

use anyhow::ensure;
use lianxin_certs_dev::Specimen;
use lianxin_harness::{Application, Call, Credentials, Opened, Refusal};
use serde_json::Value;

use crate::narrator::Telling;
use crate::story::{APP, Department, Story};

/// Somebody with certificates in jiwei's name from an authority that the federation does not know.
pub(crate) async fn outsider(story: &Story) -> anyhow::Result<((), Telling)> {
    let impostor = story.stage.application("outsider")?;
    let forged = story.stage.minted.specimen(Specimen::WrongCa);
    let call = Call::Open {
        federation: story.stage.minted.folder().to_owned(),
        department: "jiwei".to_owned(),
        app: "app-2".to_owned(),
        state: story.stage.folder().join("states").join("outsider"),
        credentials: Some(Credentials {
            tls_certificate: forged.tls_certificate,
            tls_key: forged.tls_key,
            mls_certificate: forged.mls_certificate,
            mls_key: forged.mls_key,
        }),
        gateway: None,
    };
    impostor.call::<Opened>(call).await?;
    let refusal = impostor.refused(Call::Connected).await?;
    expect(&refusal, "UnknownAuthority")?;
    impostor.kill().await?;
    let telling = Telling::new(
        "有人自称纪委监委，证书却由联邦之外的机构签发：TLS 握手即被拒绝",
        "somebody in jiwei's name, certified by an authority outside the federation, is refused in the handshake",
    );
    Ok(((), told(telling, &refusal)))
}

/// A department of the federation that the channel does not name.
pub(crate) async fn not_named(story: &Story) -> anyhow::Result<((), Telling)> {
    let stranger: Application = story.stage.application("waibu-app-1")?;
    let state = story.stage.state_folder("waibu", APP);
    stranger.call::<Opened>(Call::open(story.stage.minted.folder(), "waibu", APP, state)).await?;
    stranger.call::<Value>(Call::Connected).await?;
    let device = story.stage.device("waibu", APP)?;
    let invitation = Call::invite(&story.channel, &[&device]);
    let refusal = story.application(Department::Jiwei)?.refused(invitation).await?;
    expect(&refusal, "DEPARTMENT_NOT_NAMED")?;
    let spoke = stranger.refused(Call::send(&story.channel, "能看到吗？")).await?;
    stranger.close().await?;
    let members = story.members().await?;
    ensure!(!members.iter().any(|member| member == device.as_str()), "it has become a member");
    let telling = Telling::new(
        "外部单位在联邦之内，但通道未列名：邀请被拒；知道通道编号也发不进来",
        "a department of the federation that the channel does not name cannot be invited, and cannot speak though it knows the id",
    );
    Ok(((), told(telling, &refusal).fact("speaking", spoke.reason.clone()).line(format!("{}", spoke))))
}

pub(crate) fn expect(refusal: &Refusal, reason: &str) -> anyhow::Result<()> {
    ensure!(refusal.reason == reason, "expected {reason}, got {refusal}");
    Ok(())
}

pub(crate) fn told(telling: Telling, refusal: &Refusal) -> Telling {
    telling.fact("reason", refusal.reason.clone()).fact("error", refusal.error.clone()).line(refusal.to_string())
}
