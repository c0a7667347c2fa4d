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
fn speaks(arrival: &Arrival) {
    arrival.entrance.hall().queue(arrival.number);
}

fn places(arrivals: &[Arrival]) -> Vec<Place> {
    arrivals.iter().map(Arrival::place).collect()
}

impl Entrance {
    /// As if everybody silent had been there for so much longer.
    fn wait_in_thought(&self, time: Duration) {
        for since in self.hall().silent.values_mut() {
            *since = since
                .checked_sub(time)
                .expect("the machine runs for longer");
        }
    }
}

#[tokio::test]
async fn the_oldest_silent_one_makes_room() {
    let entrance = entrance(3, 1);
    let mut arrivals: Vec<Arrival> = (0..4).map(|_| entrance.admit(host(1))).collect();
    entrance.wait_in_thought(SILENCE);
    // It has said something: it is none of them.
    speaks(&arrivals[0]);
    let next = entrance.room();
    let mut next = std::pin::pin!(next);
    assert!(futures_util::poll!(&mut next).is_pending());
    let leaving = Place::Leaving(Gone::Silent);
    let expected = [Place::Shaking, leaving, Place::Silent, Place::Silent];
    assert_eq!(places(&arrivals), expected);
    arrivals[1].sent_away().await;
    // One is enough, however often somebody looks.
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(places(&arrivals), expected);
    drop(arrivals.remove(1));
    next.await;
}

#[tokio::test]
async fn who_was_only_just_let_in_is_not_sent_away_for_its_silence() {
    let entrance = entrance(16, 1);
    let many: Vec<Arrival> = (0..16).map(|number| entrance.admit(host(number))).collect();
    many.iter().for_each(speaks);
    // One shakes hands, fifteen wait; two have had no time to say anything.
    let fresh = entrance.admit(host(17));
    let now = Instant::now();
    for _ in 0..3 {
        let room = entrance.hall().room(now);
        assert!(
            matches!(room, Room::Later(time) if time <= SILENCE),
            "{room:?}"
        );
        assert_eq!(fresh.place(), Place::Silent);
    }
    speaks(&fresh);
    assert_eq!(fresh.place(), Place::Queued, "it is one of them");
    assert_eq!(entrance.hall().room(now + SILENCE), Room::None);
    let mut expected = [Place::Queued; 16];
    expected[0] = Place::Shaking;
    assert_eq!(places(&many), expected);
}

#[tokio::test]
async fn the_door_looks_again_when_a_silence_has_lasted() {
    let entrance = entrance(1, 0);
    let fresh = entrance.admit(host(1));
    let begun = Instant::now();
    let goes = async {
        fresh.sent_away().await;
        drop(fresh);
    };
    // Nothing but time passes.
    let both = futures_util::future::join(entrance.room(), goes);
    let both = timeout(10 * SILENCE, both).await;
    assert!(both.is_ok(), "it is never looked at again");
    assert!(begun.elapsed() >= SILENCE * 9 / 10, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn addresses_take_turns_and_each_is_served_in_order() {
    let entrance = entrance(10, 1);
    let first = entrance.admit(host(9));
    assert_eq!(first.turn().await, Ok(()));
    let crowd: Vec<Arrival> = (0..3).map(|_| entrance.admit(host(1))).collect();
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
    let slow: Vec<Arrival> = (0..2).map(|_| entrance.admit(host(1))).collect();
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
        [Place::Shaking, Place::Yielding],
        "one for one, and not the oldest"
    );
    assert!(slow[1].shake(std::future::pending::<()>()).await.is_none());
    assert_eq!(waits.place(), Place::Queued);
    drop(slow.into_iter().next_back());
    assert_eq!(waits.turn().await, Ok(()));
}

#[tokio::test]
async fn where_all_take_too_long_half_of_them_come_in_and_the_others_learn_how_long() {
    let entrance = entrance(100, 8);
    let mut arrivals: Vec<Arrival> = (0..40).map(|_| entrance.admit(host(1))).collect();
    arrivals.iter().for_each(speaks);
    // Nobody is done within patience, over and over; who yields is gone at once.
    for round in 1..=4 {
        entrance
            .hall()
            .make_way(Instant::now() + round * 2 * PATIENCE);
        arrivals.retain(|arrival| arrival.place() != Place::Yielding);
    }
    let shaking = vec![Place::Shaking; 4];
    assert_eq!(places(&arrivals[..4]), shaking, "the first ones still try");
    assert_eq!(arrivals.len(), 40 - 4 * 4, "the control: others had to go");
    // The first one is done after three times patience: from now on the others have that long.
    let since = Instant::now().checked_sub(3 * PATIENCE);
    entrance.hall().shaking[0].1 = since.expect("the machine runs for longer");
    arrivals.remove(0).welcome();
    entrance.hall().make_way(Instant::now() + 11 * PATIENCE);
    let yields = |place: &Place| *place == Place::Yielding;
    assert!(!places(&arrivals).iter().any(yields));
}

#[tokio::test]
async fn where_everybody_is_slow_more_time_is_usual() {
    let entrance = entrance(10, 2);
    assert_eq!(entrance.hall().patience(), PATIENCE);
    let honest = entrance.admit(host(1));
    assert_eq!(honest.turn().await, Ok(()));
    let long_ago = Instant::now().checked_sub(Duration::from_secs(16));
    entrance.hall().shaking[0].1 = long_ago.expect("the machine runs for longer");
    honest.welcome();
    // Nothing else is known to be usual, and four times that is allowed.
    let patience = entrance.hall().patience();
    assert!((Duration::from_secs(64)..Duration::from_secs(65)).contains(&patience));
    // One that took no time counts for an eighth.
    let quick = entrance.admit(host(1));
    assert_eq!(quick.turn().await, Ok(()));
    quick.welcome();
    let patience = entrance.hall().patience();
    assert!((Duration::from_secs(56)..Duration::from_secs(57)).contains(&patience));
    // Who shows no certificate says nothing of what is usual.
    let stranger = entrance.admit(host(1));
    assert_eq!(stranger.turn().await, Ok(()));
    entrance.hall().shaking[0].1 = long_ago.expect("as before");
    drop(stranger);
    assert_eq!(entrance.hall().patience(), patience);
}

#[tokio::test]
async fn who_waits_is_sent_away_only_from_an_address_that_takes_up_too_much() {
    let entrance = entrance(16, 0);
    let many: Vec<Arrival> = (0..16).map(|number| entrance.admit(host(number))).collect();
    many.iter().for_each(speaks);
    assert_eq!(entrance.hall().room(Instant::now()), Room::None);
    assert_eq!(
        places(&many),
        [Place::Queued; 16],
        "the next ones wait outside"
    );
    // Three of one address: more than an eighth.
    drop(many);
    let mut crowd: Vec<Arrival> = (0..3).map(|_| entrance.admit(host(99))).collect();
    let others: Vec<Arrival> = (0..13).map(|number| entrance.admit(host(number))).collect();
    crowd.iter().chain(&others).for_each(speaks);
    assert_eq!(entrance.hall().room(Instant::now()), Room::None);
    let leaving = Place::Leaving(Gone::Crowd);
    let expected = [Place::Queued, Place::Queued, leaving];
    assert_eq!(places(&crowd), expected, "its newest");
    assert_eq!(places(&others), [Place::Queued; 13]);
    assert_eq!(crowd.remove(2).turn().await, Err(Gone::Crowd));
    assert_eq!(entrance.hall().room(Instant::now()), Room::Some);
}

#[test]
fn nothing_is_left_of_who_went() {
    let entrance = entrance(8, 2);
    let arrivals: Vec<Arrival> = (0..8)
        .map(|number| entrance.admit(host(number % 3)))
        .collect();
    arrivals.iter().take(6).for_each(speaks);
    entrance.hall().make_way(Instant::now() + 2 * PATIENCE);
    drop(arrivals);
    let hall = entrance.hall();
    assert!(hall.arrivals.is_empty() && hall.silent.is_empty() && hall.queues.is_empty());
    assert!(hall.turns.is_empty() && hall.shaking.is_empty());
    assert_eq!((hall.queued, hall.yielding, hall.leaving), (0, 0, 0));
}
