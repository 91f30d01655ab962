//! Whether everything is as it must be once all is quiet: every member of the channel has the same group and all messages since
//! it came in, no message is there twice or against its sender's word, and who is no member knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lianxin_sdk::{ChannelInfo, ClientError, Event, Message, Sequence};
use lianxin_store::ChannelHead;

use crate::device::{Device, numbers};
use crate::ledger::{Book, Sent};
use crate::world::World;

/// Looks at a world as it stands.
pub(crate) struct Judge<'a> {
    world: &'a World,
    head: Arc<ChannelHead>,
}

/// Sequences and texts of a device's messages.
type History = BTreeMap<u64, Message>;

impl<'a> Judge<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let head = world.plant.store().head(&world.channel).expect("readable").expect("the channel is there");
        Self { world, head }
    }

    /// What is wrong, or not yet right.
    pub(crate) async fn first_fault(&self) -> Option<String> {
        self.look().await.err()
    }

    async fn look(&self) -> Result<(), String> {
        self.nothing_is_open()?;
        self.members_agree().await?;
        self.accounts_are_even().await
    }

    fn nothing_is_open(&self) -> Result<(), String> {
        let book = self.world.ledger.book();
        if let Some(wrong) = book.wrong.first() {
            return Err(wrong.clone());
        }
        let waits = book.open.iter().find(|(_, open)| **open > 0);
        if let Some((number, open)) = waits {
            return Err(format!("{open} calls of device {number} have no outcome"));
        }
        if !self.head.leaving.is_empty() {
            return Err(format!("{:?} still wait to leave", self.head.leaving));
        }
        Ok(())
    }

    /// A device that was removed while it was away cannot read of it: the gateway's word is all that it gets. It is told, and the
    /// group that it has is of no use to it.
    fn is_told_gone(&self, book: &Book, number: usize) -> bool {
        let is_member = self.head.members.contains_key(&self.world.devices[number].uri);
        let events = book.events.get(&number).map(Vec::as_slice).unwrap_or_default();
        let last_word = events.iter().rev().find(|event| matches!(event, Event::ChannelGone { .. } | Event::Connected));
        !is_member && matches!(last_word, Some(Event::ChannelGone { .. }))
    }

    async fn members_agree(&self) -> Result<(), String> {
        let mut first: Option<(usize, ChannelInfo)> = None;
        for device in &self.world.devices {
            let (number, is_member) = (device.number, self.head.members.contains_key(&device.uri));
            let info = match device.client().channel(self.world.channel).info().await {
                Ok(info) if is_member => info,
                Ok(_) if self.is_told_gone(&self.world.ledger.book(), number) => continue,
                Ok(_) => return Err(format!("device {number} believes to be a member")),
                Err(ClientError::NotMember) if !is_member => continue,
                Err(ClientError::NotMember) => {
                    return Err(format!("device {number} does not know that it is a member"));
                }
                Err(error) => return Err(format!("device {number} cannot read its channel: {error:?}")),
            };
            if info.is_broken {
                return Err(format!("device {number} has a broken group"));
            }
            if info.head != self.head.head.sequence || info.epoch != self.head.epoch {
                let (at, end) = ((info.head, info.epoch), (self.head.head.sequence, self.head.epoch));
                return Err(format!("device {number} is at {at:?}, the log ends at {end:?}"));
            }
            match &first {
                None => first = Some((number, info)),
                Some((other, agreed)) => {
                    if (agreed.epoch_authenticator, &agreed.members) != (info.epoch_authenticator, &info.members) {
                        return Err(format!("devices {other} and {number} are in different groups"));
                    }
                }
            }
        }
        let members: BTreeSet<_> = first.map(|(_, info)| info.members).unwrap_or_default().into_iter().collect();
        if members != self.head.members.keys().cloned().collect() {
            return Err(format!("the members know {members:?}, the gateway {:?}", self.head.members));
        }
        Ok(())
    }

    async fn accounts_are_even(&self) -> Result<(), String> {
        let mut texts: BTreeMap<u64, String> = BTreeMap::new();
        for device in &self.world.devices {
            let history = self.history(device).await?;
            self.matches_log(device.number, &history, &mut texts)?;
            self.was_read_in_its_time(device, &history)?;
            self.was_given(device.number, &history)?;
        }
        self.senders_were_told_the_truth(&texts)
    }

    /// A device has all messages since it came in, those of an earlier stay up to some point without a hole, and none from when it was no
    /// member.
    fn was_read_in_its_time(&self, device: &Device, history: &History) -> Result<(), String> {
        let log = self.world.plant.log.pages();
        let mut may_read = BTreeSet::new();
        let rejoined = self.rejoined(device);
        let went_back = self.world.ledger.book().went_back.contains(&device.number);
        let needless = rejoined.iter().find(|epoch| !log.was_cut_off(&device.uri, **epoch, history.keys().copied()));
        if let Some(epoch) = needless.filter(|_| !went_back) {
            return Err(format!("device {} came back into epoch {epoch} without need", device.number));
        }
        for stay in log.stays_of(&device.uri, &rejoined) {
            let is_own = |at: &u64| log.events.get(at).is_some_and(|event| event.sender == device.uri);
            // What a device has sent does not open for itself: an older state has nothing of it.
            let messages = log.messages(stay.joined, stay.left).into_iter();
            may_read.extend(messages.clone());
            let messages: Vec<u64> = messages.filter(|at| !(went_back && is_own(at))).collect();
            let read = messages.iter().take_while(|at| history.contains_key(at)).count();
            let is_whole = read == messages.len() || stay.left.is_some();
            if !is_whole || messages[read..].iter().any(|at| history.contains_key(at)) {
                return Err(format!("device {} has not message {} of {stay:?}", device.number, messages[read]));
            }
        }
        match history.keys().find(|at| !may_read.contains(at)) {
            Some(at) => Err(format!("device {} has message {at} from when it was no member", device.number)),
            None => Ok(()),
        }
    }

    /// The epochs in which a device was told that it had come back by itself.
    fn rejoined(&self, device: &Device) -> Vec<u64> {
        let book = self.world.ledger.book();
        let told = book.events.get(&device.number).into_iter().flatten().filter_map(|event| match event {
            Event::MemberRejoined { device: who, epoch, .. } if *who == device.uri => Some(epoch.0),
            _ => None,
        });
        told.collect()
    }

    async fn history(&self, device: &Device) -> Result<History, String> {
        let (channel, mut history) = (device.client().channel(self.world.channel), History::new());
        loop {
            let after = Sequence(history.last_key_value().map_or(0, |(at, _)| *at));
            let page =
                channel.history(after, 500).await.map_err(|error| format!("device {}: {error:?}", device.number))?;
            if page.is_empty() {
                return Ok(history);
            }
            history.extend(page.into_iter().map(|message| (message.sequence.0, message)));
        }
    }

    /// All devices that have a message have the same one, from whom the log says.
    fn matches_log(&self, number: usize, history: &History, texts: &mut BTreeMap<u64, String>) -> Result<(), String> {
        let log = self.world.plant.log.pages();
        for (at, message) in history {
            let Some(event) = log.events.get(at) else {
                return Err(format!("device {number} has message {at}, which is none"));
            };
            let text = message.text().unwrap_or("(not text)").to_owned();
            if event.sender != message.sender {
                return Err(format!("device {number} has message {at} from {:?}", message.sender));
            }
            let known = texts.entry(*at).or_insert_with(|| text.clone());
            if *known != text {
                return Err(format!("message {at} is {known:?} to one and {text:?} to device {number}"));
            }
        }
        Ok(())
    }

    /// The application was given every message of others.
    fn was_given(&self, number: usize, history: &History) -> Result<(), String> {
        let book = self.world.ledger.book();
        let given = book.given.get(&number).cloned().unwrap_or_default();
        let uri = &self.world.devices[number].uri;
        let of_others: BTreeSet<u64> =
            history.iter().filter(|(_, message)| message.sender != *uri).map(|(at, _)| *at).collect();
        // An older state may be without what its application was given before.
        let is_even = given == of_others || (book.went_back.contains(&number) && given.is_superset(&of_others));
        if is_even { Ok(()) } else { Err(format!("device {number} was given {given:?} of {of_others:?}")) }
    }

    /// Whether the message at a position is the sender's and everybody who could read it was away until retention took it.
    fn is_unread(&self, at: u64, text: &str) -> bool {
        let log = self.world.plant.log.pages();
        let sender = numbers(text).map(|(device, _)| &self.world.devices[device].uri);
        log.events.get(&at).is_some_and(|event| Some(&event.sender) == sender)
    }

    fn senders_were_told_the_truth(&self, texts: &BTreeMap<u64, String>) -> Result<(), String> {
        // An older state sends what waited in it, whatever was said of that since.
        let went_back = self.world.ledger.book().went_back.clone();
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, text) in texts {
            let (device, number) = numbers(text).ok_or_else(|| format!("nobody sent {text:?}, at {at}"))?;
            if last.insert(device, number).is_some_and(|last| last >= number) && !went_back.contains(&device) {
                return Err(format!("{text:?} of device {device} is out of order, at {at}"));
            }
        }
        let mut places: BTreeMap<&str, u64> = BTreeMap::new();
        for (at, text) in texts {
            if let Some(first) = places.insert(text, *at) {
                return Err(format!("{text:?} is there twice, at {first} and {at}"));
            }
        }
        for (text, sent) in &self.world.ledger.book().sends {
            let place = places.get(text.as_str());
            let is_true = match sent {
                Sent::Unknown => true,
                Sent::Accepted(at) => place == Some(at) || (place.is_none() && self.is_unread(*at, text)),
                Sent::Refused(_) => {
                    place.is_none() || numbers(text).is_some_and(|(device, _)| went_back.contains(&device))
                }
            };
            if !is_true {
                return Err(format!("the sender of {text:?} was told {sent:?}, and it is at {place:?}"));
            }
        }
        Ok(())
    }
}
