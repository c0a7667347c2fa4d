//! Who comes in, in which turn, and who has to go.

use super::*;

fn entrance(waiting: usize, handshakes: usize) -> Arc<Entrance> {
    Arc::new(Entrance::new(waiting, handshakes))
}

fn at(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn host(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

/// Its first bytes are there.
fn speaks(guest: &Guest) {
    guest.entrance.hall().queue(guest.number);
}

fn places(guests: &[Guest]) -> Vec<Place> {
    guests.iter().map(Guest::place).collect()
}

#[tokio::test]
async fn the_oldest_silent_one_makes_room() {
    let entrance = entrance(3, 1);
    let mut guests: Vec<Guest> = (0..4).map(|_| entrance.admit(host(1))).collect();
    // It has said something: it is none of them.
    speaks(&guests[0]);
    let next = entrance.room();
    let mut next = std::pin::pin!(next);
    assert!(futures_util::poll!(&mut next).is_pending());
    let expected = [Place::Shaking, Place::Leaving, Place::Silent, Place::Silent];
    assert_eq!(places(&guests), expected);
    guests[1].sent_away().await;
    // One is enough, however often somebody looks.
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(places(&guests), expected);
    drop(guests.remove(1));
    next.await;
}

#[tokio::test]
async fn addresses_take_turns_and_each_is_served_in_order() {
    let entrance = entrance(10, 1);
    let first = entrance.admit(host(9));
    assert!(first.turn().await);
    let crowd: Vec<Guest> = (0..3).map(|_| entrance.admit(host(1))).collect();
    let other = entrance.admit(host(2));
    crowd.iter().rev().for_each(speaks);
    speaks(&other);
    drop(first);
    assert_eq!(crowd[0].place(), Place::Shaking, "the oldest of the first");
    drop(crowd.into_iter().next());
    assert_eq!(other.place(), Place::Shaking, "nobody waits for a crowd");
}

#[test]
fn addresses_of_one_host_are_one() {
    let same = |a, b| Origin::of(at(a)) == Origin::of(at(b));
    assert!(same("2001:db8::1", "2001:db8::ffff:0:0:2"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
    assert!(!same("192.0.2.1", "192.0.2.2"));
}

#[tokio::test]
async fn a_handshake_that_takes_long_ends_where_somebody_waits_and_nowhere_else() {
    let entrance = entrance(10, 2);
    let slow: Vec<Guest> = (0..2).map(|_| entrance.admit(host(1))).collect();
    slow.iter().for_each(speaks);
    let now = Instant::now();
    entrance.hall().make_way(now + 10 * PATIENCE);
    assert_eq!(places(&slow), [Place::Shaking; 2], "nobody waits");
    let waits = entrance.admit(host(1));
    speaks(&waits);
    entrance.hall().make_way(now);
    assert_eq!(places(&slow), [Place::Shaking; 2], "it is not long yet");
    entrance.hall().make_way(now + 2 * PATIENCE);
    entrance.hall().make_way(now + 2 * PATIENCE);
    assert_eq!(
        places(&slow),
        [Place::Yielding, Place::Shaking],
        "one for one"
    );
    assert!(slow[0].shake(std::future::pending::<()>()).await.is_none());
    assert_eq!(waits.place(), Place::Queued);
    drop(slow.into_iter().next());
    assert!(waits.turn().await);
}

#[tokio::test]
async fn where_everybody_is_slow_more_time_is_usual() {
    let entrance = entrance(10, 2);
    assert_eq!(entrance.hall().patience(), PATIENCE);
    let honest = entrance.admit(host(1));
    assert!(honest.turn().await);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(16));
    entrance.hall().shaking[0].1 = long_ago.expect("the machine runs for longer");
    honest.welcome();
    // An eighth of 16 seconds is usual now, and four times that is allowed.
    let patience = entrance.hall().patience();
    assert!((Duration::from_secs(8)..Duration::from_secs(9)).contains(&patience));
    // Who shows no certificate says nothing of what is usual.
    let stranger = entrance.admit(host(1));
    assert!(stranger.turn().await);
    entrance.hall().shaking[0].1 = long_ago.expect("as before");
    drop(stranger);
    assert_eq!(entrance.hall().patience(), patience);
}

#[tokio::test]
async fn who_waits_is_sent_away_only_from_an_address_that_takes_up_too_much() {
    let entrance = entrance(16, 0);
    let many: Vec<Guest> = (0..16).map(|number| entrance.admit(host(number))).collect();
    many.iter().for_each(speaks);
    assert!(!entrance.hall().has_room());
    assert_eq!(
        places(&many),
        [Place::Queued; 16],
        "the next ones wait outside"
    );
    // Three of one address: more than an eighth.
    drop(many);
    let mut crowd: Vec<Guest> = (0..3).map(|_| entrance.admit(host(99))).collect();
    let others: Vec<Guest> = (0..13).map(|number| entrance.admit(host(number))).collect();
    crowd.iter().chain(&others).for_each(speaks);
    assert!(!entrance.hall().has_room());
    let expected = [Place::Queued, Place::Queued, Place::Leaving];
    assert_eq!(places(&crowd), expected, "its newest");
    assert_eq!(places(&others), [Place::Queued; 13]);
    assert!(!crowd.remove(2).turn().await);
    assert!(entrance.hall().has_room());
}

#[test]
fn nothing_is_left_of_who_went() {
    let entrance = entrance(8, 2);
    let guests: Vec<Guest> = (0..8)
        .map(|number| entrance.admit(host(number % 3)))
        .collect();
    guests.iter().take(6).for_each(speaks);
    entrance.hall().make_way(Instant::now() + 2 * PATIENCE);
    drop(guests);
    let hall = entrance.hall();
    assert!(hall.guests.is_empty() && hall.silent.is_empty() && hall.queues.is_empty());
    assert!(hall.turns.is_empty() && hall.shaking.is_empty());
    assert_eq!((hall.queued, hall.yielding, hall.leaving), (0, 0, 0));
}
