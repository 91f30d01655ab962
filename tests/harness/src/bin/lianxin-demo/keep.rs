//! `--keep`: the gateway stays, and people are told how to reach it.

use crate::narrator::Narrator;
use crate::story::Story;

/// Leaves the gateway running and its folder in place.
pub(crate) fn leave_running(story: Story, narrator: &Narrator) {
    let stage = story.stage;
    let (folder, federation) = (stage.folder().display().to_string(), stage.minted.folder().display().to_string());
    let process = stage.gateway.process_id().unwrap_or_default();
    narrator.tell(&format!(
        "\n网关仍在运行 · the gateway keeps running at {} (process {process})\n\
         \x20 SDK      Config::from_certs_dev(\"{federation}\".as_ref(), \"jiwei\", \"app-2\", \"state\")\n\
         \x20 app      echo '{{\"id\":1,\"call\":\"open\",\"federation\":\"{federation}\",\"department\":\"jiwei\",\"app\":\"app-2\",\"state\":\"{folder}/states/mine\"}}' | target/debug/lianxin-app\n\
         \x20 metrics  http://{}/metrics\n\
         \x20 log      {}\n\
         \x20 config   {}\n\
         停止 · stop: kill {process}; rm -r {folder}",
        stage.gateway.address(),
        stage.gateway.metrics(),
        stage.gateway.log_file().display(),
        stage.gateway.config_file().display(),
    ));
    stage.gateway.leave_running();
}
