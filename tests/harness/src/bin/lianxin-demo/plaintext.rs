//! The gateway's disk and log, searched for what was said. The same search finds it where it was put on purpose.

use anyhow::ensure;
use lianxin_harness::{DiskSearch, Found};

use crate::narrator::Telling;
use crate::story::Story;

pub(crate) async fn search(story: &Story) -> anyhow::Result<((), Telling)> {
    let search = DiskSearch::new(story.said.iter().map(String::as_str));
    let controls = story.stage.folder().join("search-control");
    let planted = search.write_controls(&controls)?;
    let control = search.search(&controls)?;
    ensure!(control.hits.len() == planted, "the search finds {} of {planted} planted texts", control.hits.len());

    let gateway = &story.stage.gateway;
    // What the gateway has to know does lie there: identities, not contents.
    let members = story.members().await?;
    let known = DiskSearch::new(members.iter().map(String::as_str)).search(&gateway.zone_folder())?;
    for member in &members {
        ensure!(
            known.hits.iter().any(|(_, _, text)| text == member),
            "the zone's files do not hold a member's identity"
        );
    }
    let mut searched = Found::default();
    for path in [gateway.zone_folder(), gateway.log_file(), story.stage.states_folder()] {
        let found = search.search(&path)?;
        ensure!(found.files > 0 && found.bytes > 0, "nothing to search in {}", path.display());
        ensure!(found.hits.is_empty(), "plaintext found: {:?}", found.hits.first());
        searched.files += found.files;
        searched.bytes += found.bytes;
    }
    let (texts, files, kib) = (story.said.len(), searched.files, searched.bytes / 1024);
    let telling = Telling::new(
        format!(
            "在网关磁盘、日志和应用的封存状态共 {files} 个文件 {kib} KiB 中搜 {texts} 段原文：没有；对照文件 {planted} 处全部搜到"
        ),
        format!(
            "{texts} texts in UTF-8 and UTF-16 are nowhere on the gateway's disk, in its log or in the sealed states; all {planted} planted ones were found"
        ),
    );
    let telling = telling.fact("texts", texts).fact("files", files).fact("bytes", searched.bytes);
    let telling = telling.line(
        "网关只知道谁与谁通信：磁盘上搜得到成员标识 · who talks to whom is there: the members' identities are found",
    );
    Ok(((), telling.fact("controls_found", control.hits.len()).fact("identities_found", members.len())))
}
