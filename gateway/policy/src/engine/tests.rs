use lianxin_types::{ChannelId, DepartmentId, DeviceUri, LIMITS, Timestamp};

use super::*;

const CHANNEL: ChannelId = ChannelId([9; 16]);

fn device(text: &str) -> DeviceUri {
    text.parse().expect("well formed")
}

fn department(text: &str) -> DepartmentId {
    text.parse().expect("well formed")
}

fn facts(departments: &[DepartmentId]) -> ChannelFacts<'_> {
    ChannelFacts {
        id: CHANNEL,
        departments,
        expires: Some(Timestamp(1_000)),
        is_member: true,
        is_awaited: false,
        is_known: true,
        is_leaving: false,
        is_paused: false,
        was_member: true,
    }
}

/// Whether the caller may send, as the Send stream asks.
fn lease(engine: &Engine, request: &Request<'_>) -> Result<Lease, Denial> {
    engine.send_lease(request, Generation(1))
}

fn request<'a>(caller: &'a DeviceUri, channel: ChannelFacts<'a>) -> Request<'a> {
    Request {
        caller,
        now: Timestamp(1),
        channel: Some(channel),
        departments_added: &[],
        members_after: 2,
        devices_added: 0,
    }
}

#[test]
fn an_unknown_channel_and_a_foreign_one_look_alike() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://waibu/app/a/1");
    let named = [department("jiwei")];
    let foreign = ChannelFacts { is_member: false, is_known: false, ..facts(&named) };
    let unknown = Request { channel: None, ..request(&caller, foreign) };
    assert_eq!(lease(&engine, &request(&caller, foreign)).err(), Some(Denial::ChannelNotAvailable));
    assert_eq!(lease(&engine, &unknown).err(), Some(Denial::ChannelNotAvailable));
    assert_eq!(engine.follow(&request(&caller, foreign)).err(), Some(Denial::ChannelNotAvailable));
    assert_eq!(engine.read_history(&unknown).err(), Some(Denial::ChannelNotAvailable));
}

#[test]
fn officers_and_gateways_may_not_take_part() {
    let engine = Engine::new(LIMITS);
    let named = [department("jiwei")];
    for caller in ["lianxin://jiwei/officer/a/1", "lianxin://jiwei/gateway/a/1", "lianxin://jiwei/issuer/a/1"] {
        let caller = device(caller);
        let request = request(&caller, facts(&named));
        assert_eq!(lease(&engine, &request).err(), Some(Denial::WrongKind));
        assert_eq!(engine.create_channel(&request).err(), Some(Denial::WrongKind));
        assert_eq!(engine.publish_key_packages(&request).err(), Some(Denial::WrongKind));
        assert_eq!(engine.list_channels(&request).err(), Some(Denial::WrongKind));
        assert_eq!(engine.open_receive(&request).err(), Some(Denial::WrongKind));
        assert!(engine.read_trust(&request).is_ok());
    }
}

#[test]
fn a_former_member_is_told_so_and_a_leaving_one_may_not_send() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei")];
    let former = ChannelFacts { is_member: false, ..facts(&named) };
    assert_eq!(lease(&engine, &request(&caller, former)).err(), Some(Denial::NotMember));
    let leaving = ChannelFacts { is_leaving: true, ..facts(&named) };
    assert_eq!(lease(&engine, &request(&caller, leaving)).err(), Some(Denial::Leaving));
    assert_eq!(engine.commit(&request(&caller, leaving)).err(), Some(Denial::Leaving));
    assert_eq!(engine.leave(&request(&caller, leaving)).err(), Some(Denial::Leaving));
    assert!(engine.follow(&request(&caller, leaving)).is_ok());
}

#[test]
fn who_is_paused_may_not_commit_and_only_the_owners_other_devices_allow_it() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei"), department("shenji")];
    let paused = ChannelFacts { is_paused: true, ..facts(&named) };
    assert_eq!(engine.commit(&request(&caller, paused)).err(), Some(Denial::CommitterPaused));
    assert!(lease(&engine, &request(&caller, paused)).is_ok() && engine.leave(&request(&caller, paused)).is_ok());
    let leaving = ChannelFacts { is_leaving: true, ..facts(&named) };
    assert_eq!(engine.report(&request(&caller, leaving)).err(), Some(Denial::Leaving));
    assert!(engine.report(&request(&caller, facts(&named))).is_ok());

    let allow = |who: &str, facts| {
        let who = device(who);
        engine.allow_committer(&request(&who, facts), &caller).map(|_| ())
    };
    let stranger = ChannelFacts { is_member: false, is_known: false, was_member: false, ..facts(&named) };
    assert_eq!(allow("lianxin://jiwei/app/b/1", stranger), Err(Denial::ChannelNotAvailable));
    assert_eq!(allow("lianxin://jiwei/app/a/1", paused), Err(Denial::NotOwner), "not the paused one itself");
    assert_eq!(allow("lianxin://shenji/app/b/1", facts(&named)), Err(Denial::NotOwner), "not another department");
    let never = ChannelFacts { is_member: false, was_member: false, ..facts(&named) };
    assert_eq!(allow("lianxin://jiwei/app/b/1", never), Err(Denial::NotOwner), "not a device from elsewhere");
    assert_eq!(allow("lianxin://jiwei/app/b/1", ChannelFacts { is_member: false, ..facts(&named) }), Ok(()));
}

#[test]
fn an_ended_label_stops_sending_but_not_leaving() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei")];
    let late = Request { now: Timestamp(1_000), ..request(&caller, facts(&named)) };
    assert_eq!(lease(&engine, &late).err(), Some(Denial::ChannelExpired));
    assert_eq!(engine.commit(&late).err(), Some(Denial::ChannelExpired));
    assert!(engine.leave(&late).is_ok());
    assert!(engine.read_history(&late).is_ok());
}

#[test]
fn only_named_departments_come_in() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei"), department("shenji")];
    let added = [department("shenji"), department("waibu")];
    let refused = Request { departments_added: &added, devices_added: 2, ..request(&caller, facts(&named)) };
    let expect = Some(Denial::DepartmentNotNamed { department: department("waibu") });
    assert_eq!(engine.commit(&refused).err(), expect);
    assert_eq!(engine.claim_key_packages(&refused).err(), expect);
    let stranger = device("lianxin://weijian/app/a/1");
    let expect = Some(Denial::DepartmentNotNamed { department: department("weijian") });
    assert_eq!(engine.create_channel(&request(&stranger, facts(&named))).err(), expect);
}

#[test]
fn limits_hold_at_the_bound_and_refuse_one_over() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei")];
    let with =
        |devices_added, members_after| Request { devices_added, members_after, ..request(&caller, facts(&named)) };
    assert!(engine.commit(&with(100, 1_000)).is_ok());
    let per_commit = Denial::LimitReached { what: "invites per commit", limit: 100 };
    assert_eq!(engine.commit(&with(101, 1_000)).err(), Some(per_commit));
    let members = Denial::LimitReached { what: "members per channel", limit: 1_000 };
    assert_eq!(engine.commit(&with(1, 1_001)).err(), Some(members));

    let many: Vec<_> = (0..65).map(|number| department(&format!("d{number}"))).collect();
    let caller = device("lianxin://d0/app/a/1");
    assert!(engine.create_channel(&request(&caller, facts(&many[..64]))).is_ok());
    let departments = Denial::LimitReached { what: "departments per channel", limit: 64 };
    assert_eq!(engine.create_channel(&request(&caller, facts(&many))).err(), Some(departments));
}

#[test]
fn a_lease_holds_until_its_generation_or_its_time_moves() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei")];
    let lease = engine.send_lease(&request(&caller, facts(&named)), Generation(4)).expect("a member");
    let permit = lease.draw(Generation(4), Timestamp(999)).expect("nothing moved");
    assert_eq!((permit.caller(), permit.channel()), (&caller, Some(&CHANNEL)));
    assert_eq!(lease.draw(Generation(5), Timestamp(1)).err(), Some(crate::Stale));
    assert_eq!(lease.draw(Generation(4), Timestamp(1_000)).err(), Some(crate::Stale));
}

#[test]
fn who_is_awaited_may_start_another_group_and_do_nothing_else() {
    let engine = Engine::new(LIMITS);
    let caller = device("lianxin://jiwei/app/a/1");
    let named = [department("jiwei")];
    let awaited = ChannelFacts { is_member: false, is_awaited: true, ..facts(&named) };
    assert!(engine.start_incarnation(&request(&caller, awaited)).is_ok());
    assert!(engine.follow(&request(&caller, awaited)).is_ok());
    assert_eq!(lease(&engine, &request(&caller, awaited)).err(), Some(Denial::NotMember));
    assert_eq!(engine.leave(&request(&caller, awaited)).err(), Some(Denial::NotMember));
    let former = ChannelFacts { is_member: false, ..facts(&named) };
    assert_eq!(engine.start_incarnation(&request(&caller, former)).err(), Some(Denial::NotMember));
    let paused = ChannelFacts { is_paused: true, ..awaited };
    assert_eq!(engine.start_incarnation(&request(&caller, paused)).err(), Some(Denial::CommitterPaused));
    let late = Request { now: Timestamp(1_000), ..request(&caller, awaited) };
    assert_eq!(engine.start_incarnation(&late).err(), Some(Denial::ChannelExpired));
}
