//! One conversation, and every kind of bytes that it made.

use std::sync::OnceLock;

use anyhow::Result;
use lianxin_mls::CommitBundle;
use lianxin_types::{ChannelId, IdempotencyId};

use crate::{Channel, Device};

/// What one conversation left.
pub(crate) struct Stock {
    pub(crate) start_info: Vec<u8>,
    pub(crate) start_tree: Vec<u8>,
    pub(crate) key_packages: Vec<Vec<u8>>,
    pub(crate) welcomes: Vec<Vec<u8>>,
    pub(crate) commits: Vec<Vec<u8>>,
    pub(crate) group_infos: Vec<Vec<u8>>,
    pub(crate) trees: Vec<Vec<u8>>,
    pub(crate) proposals: Vec<Vec<u8>>,
    pub(crate) messages: Vec<Vec<u8>>,
    /// Commits and proposals that are for the state of `channel`.
    pub(crate) waiting: Vec<(Vec<u8>, lianxin_types::DeviceUri)>,
    pub(crate) channel: Channel,
}

/// The stock of this program; made at the first call.
pub(crate) fn stock() -> &'static Stock {
    static STOCK: OnceLock<Stock> = OnceLock::new();
    STOCK.get_or_init(|| make().expect("an honest conversation keeps every rule"))
}

fn make() -> Result<Stock> {
    let [a, b, c, d] = [Device::of("jiwei"), Device::of("shenji"), Device::of("weijian"), Device::of("jiwei")];
    let mut channel = Channel::start(&a, &["jiwei", "shenji", "weijian"])?;
    let mut made = Made::default();
    let id = channel.id;
    let bundle = channel.seat(&a, &[&a], &[&b, &c])?;
    made.bundle(channel.state.tree()?.to_vec(), bundle);
    made.messages.push(say(&b, id, "请提供三月份台账。")?);
    made.messages.push(say(&a, id, &"台账".repeat(500))?);
    made.key_packages.push(d.key_package());
    let last = d.run(|mls, tx, federation| mls.key_packages(tx, federation, 0, true))?.last_resort;
    made.key_packages.extend(last);
    // One who leaves, and the commit that lets it go.
    let proposal = c.run(move |mls, tx, _| mls.leave(tx, id))?;
    made.proposals.push(proposal.clone());
    channel.leave(&c, proposal)?;
    channel.feed(&a)?;
    channel.feed(&b)?;
    let bundle = b.run(move |mls, tx, federation| mls.commit_pending(tx, federation, id))?;
    channel.commit(&b, &bundle)?;
    made.bundle(channel.state.tree()?.to_vec(), bundle);
    channel.feed(&a)?;
    channel.feed(&b)?;
    let bundle = channel.seat(&b, &[&a, &b], &[&d])?;
    made.bundle(channel.state.tree()?.to_vec(), bundle);
    // Three that wait, each for the state as it is.
    let gone = b.uri.clone();
    let removal = a.run(move |mls, tx, federation| mls.remove(tx, federation, id, &[gone]))?;
    let package = Device::of("shenji").key_package();
    let invite = b.run(move |mls, tx, federation| mls.invite(tx, federation, id, &[package]))?;
    let leave = d.run(move |mls, tx, _| mls.leave(tx, id))?;
    let waiting = vec![(removal.commit, a.uri.clone()), (invite.commit, b.uri.clone()), (leave, d.uri.clone())];
    made.welcomes.push(invite.welcome);
    made.group_infos.push(invite.group_info);
    let Made { key_packages, welcomes, commits, group_infos, trees, proposals, messages } = made;
    let (start_info, start_tree) = (channel.start.group_info.clone(), channel.start.ratchet_tree.clone());
    Ok(Stock {
        start_info,
        start_tree,
        key_packages,
        welcomes,
        commits,
        group_infos,
        trees,
        proposals,
        messages,
        waiting,
        channel,
    })
}

fn say(device: &Device, channel: ChannelId, body: &str) -> Result<Vec<u8>> {
    let body = body.as_bytes().to_vec();
    Ok(device.run(move |mls, tx, federation| mls.encrypt(tx, federation, channel, IdempotencyId([5; 16]), &body))?.mls)
}

#[derive(Default)]
struct Made {
    key_packages: Vec<Vec<u8>>,
    welcomes: Vec<Vec<u8>>,
    commits: Vec<Vec<u8>>,
    group_infos: Vec<Vec<u8>>,
    trees: Vec<Vec<u8>>,
    proposals: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
}

impl Made {
    fn bundle(&mut self, tree: Vec<u8>, bundle: CommitBundle) {
        self.trees.push(tree);
        self.commits.push(bundle.commit);
        self.group_infos.push(bundle.group_info);
        self.welcomes.extend(Some(bundle.welcome).filter(|welcome| !welcome.is_empty()));
    }
}
