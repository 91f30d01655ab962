//! The fourteen steps in their order, and the first two of them.

use lianxin_certs_dev::FederationPlan;
use lianxin_harness::Stage;
use serde_json::json;

use crate::narrator::{Narrator, Telling};
use crate::story::{DEPARTMENTS, Story};
use crate::{conversation, crash, heal, keep, lost_reply, plaintext, refusals, revocation, sdk_crash};

/// Performs the demo.
///
/// # Errors
/// The first check that fails.
pub(crate) async fn perform(narrator: &mut Narrator, is_kept: bool) -> anyhow::Result<()> {
    let mut story = narrator.step("mint", mint(is_kept)).await?;
    narrator.step("start", start(&mut story)).await?;
    narrator.step("create", conversation::create(&mut story)).await?;
    narrator.step("invite", conversation::invite(&mut story)).await?;
    narrator.step("talk", conversation::talk(&mut story)).await?;
    narrator.step("offline", conversation::offline(&mut story)).await?;
    narrator.step("outsider", refusals::outsider(&story)).await?;
    narrator.step("refused", refusals::not_named(&story)).await?;
    narrator.step("revoked", revocation::revoked(&mut story)).await?;
    narrator.step("crash", crash::crash(&mut story)).await?;
    narrator.step("sdk-crash", sdk_crash::sdk_crash(&mut story)).await?;
    narrator.step("lost-reply", lost_reply::lost_reply(&mut story)).await?;
    narrator.step("heal", heal::heal(&mut story)).await?;
    narrator.step("plaintext", plaintext::search(&story)).await?;
    for department in DEPARTMENTS {
        story.close(department).await?;
    }
    if is_kept {
        keep::leave_running(story, narrator);
    } else {
        story.stage.gateway.stop().await?;
    }
    Ok(())
}

async fn mint(is_kept: bool) -> anyhow::Result<(Story, Telling)> {
    let stage = Stage::set_up(FederationPlan::default())?;
    let stage = if is_kept { stage.keep_folder() } else { stage };
    let bundle = stage.minted.bundle()?.bundle;
    let departments = bundle.departments.len();
    let names: Vec<_> = bundle.departments.iter().map(|department| department.name.as_str()).collect();
    let telling = Telling::new(
        format!("{}，各有自己的 CA；信任包由三把根密钥中的两把签名", names.join("、")),
        format!("{departments} departments, each with its own CA; the trust bundle is signed by 2 of 3 root keys"),
    );
    let telling = telling.fact("departments", departments).fact("folder", stage.folder().to_string_lossy());
    Ok((Story::new(stage), telling))
}

async fn start(story: &mut Story) -> anyhow::Result<((), Telling)> {
    story.stage.gateway.start().await?;
    for department in DEPARTMENTS {
        story.open(department).await?;
    }
    let (address, process) = (story.stage.gateway.address(), story.stage.gateway.process_id());
    let applications = DEPARTMENTS.into_iter().map(|department| Ok(story.application(department)?.process_id()));
    let applications = applications.collect::<anyhow::Result<Vec<_>>>()?;
    let telling = Telling::new(
        format!("网关在 {address}（TLS 1.3 双向认证），三个部门的应用各为独立进程，均已连接"),
        "a gateway process with mutual TLS 1.3 and three application processes, all connected",
    );
    let telling = telling.fact("address", address.to_string()).fact("gateway_process", json!(process));
    Ok(((), telling.fact("application_processes", json!(applications))))
}
