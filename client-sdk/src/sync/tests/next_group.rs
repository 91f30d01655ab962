//! A broken channel that goes on in another group, where not everybody can be seated at once.

use super::*;

impl Device {
    /// Another breaks the group, and this device carries the channel on with nobody seated yet.
    fn starts_the_next_group(&mut self) {
        assert!(self.broken_by_another().place.is_broken);
        let channel = self.channel;
        let start = self.run(move |tx, mls, federation| {
            let staged = changes::put_start(tx, channel, id(71), mls.next_incarnation(tx, federation, channel))?;
            assert!(matches!(staged, Staged::Ready));
            Ok(changes::get(tx, channel, IntentKind::Start)?.expect("stored").parts[0].clone())
        });
        assert!(self.deliver(EventKind::Start, id(71), start).epoch_changed);
    }

    fn encrypt_waiting(&self) -> usize {
        let channel = self.channel;
        self.run(move |tx, mls, federation| {
            let encrypted = outbox::encrypt_waiting(tx, mls, federation, channel)?;
            assert!(encrypted.failures.is_empty());
            Ok(encrypted.count)
        })
    }

    fn ciphertexts(&self) -> Vec<Vec<u8>> {
        self.outbox().into_iter().map(|row| row.mls).collect()
    }
}

#[test]
fn who_is_late_keeps_nobody_and_what_is_on_its_way_is_not_encrypted_a_second_time() {
    let (mut host, guest) = Device::with_guest();
    host.seat(1, &guest);
    host.send(id(20), "一");
    host.starts_the_next_group();
    host.send(id(21), "二");
    assert_eq!(
        (host.encrypt_waiting(), host.ciphertexts()),
        (0, vec![vec![], vec![]]),
        "the guest is to be seated first"
    );

    let (channel, late) = (host.channel, guest.uri.clone());
    host.run(move |tx, mls, _| Ok(mls.defer_seats(tx, channel, &[late], &[])?));
    host.send(id(22), "三");
    assert_eq!(host.ciphertexts()[2], b"", "none overtakes another");
    assert_eq!(host.encrypt_waiting(), 3);
    let sent = host.ciphertexts();
    host.send(id(23), "四");
    // As often as somebody looks whether the guest can be seated now.
    assert_eq!(host.encrypt_waiting(), 0);
    assert_eq!(host.ciphertexts()[..3], sent);

    for (number, mls) in (20..).zip(sent) {
        assert!(matches!(host.deliver(EventKind::Application, id(number), mls).settled[..], [(_, Ok(_))]));
    }
    assert_eq!(
        (host.read(6), host.read(8)),
        ("一".as_bytes().to_vec(), "三".as_bytes().to_vec()),
        "in the own history"
    );
}
