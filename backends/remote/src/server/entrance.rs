//! The way in: who has said nothing yet, who waits for a handshake, and whose is under way.
//!
//! Until its first bytes are there, a connection costs a descriptor and no more. Then it waits its
//! turn: addresses take turns, and the connections of one come in the order in which they were made,
//! so that one host which floods the service delays itself. Of those whose handshake takes too long
//! one ends where somebody else waits, save the oldest: half of the places are theirs, so that some
//! come in also where all take long.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How many handshakes are under way at the same time: whoever has shown no certificate takes no
/// more of the server than that, and memory for no more of them.
pub(super) const HANDSHAKES: usize = 256;
/// How many connections wait for their first bytes or for their turn.
pub(super) const WAITING: usize = 4096;
/// How long nobody is sent away for having said nothing: a whole handshake's beginning is on its way
/// when the connection is taken, and nobody has looked for it yet.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a handshake may take where others wait for theirs.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many times as long as usual it may take, where that is more: on a busy machine everybody is
/// slow. Only who shows a certificate counts for what is usual.
const SLOW: u32 = 4;
/// How often a handshake that takes long looks whether somebody waits.
const LOOK: Duration = Duration::from_millis(250);
/// Where nobody else can come in, no address waits with more than this part of all who wait.
const PART: usize = 8;

/// Everybody on the way in.
#[derive(Debug)]
pub(super) struct Entrance {
    hall: Mutex<Hall>,
    /// Told when somebody is gone.
    gone: Notify,
}

#[derive(Debug)]
struct Hall {
    /// How many may wait.
    waiting: usize,
    /// How many may shake hands.
    handshakes: usize,
    next: u64,
    arrivals: HashMap<u64, Known>,
    /// Those that have said nothing, and since when: the oldest first.
    silent: BTreeMap<u64, Instant>,
    queues: HashMap<Origin, BTreeSet<u64>>,
    /// The addresses that wait, in turn.
    turns: VecDeque<Origin>,
    queued: usize,
    /// Whose handshake is under way, and since when: the oldest first.
    shaking: VecDeque<(u64, Instant)>,
    /// How many of those that end have a handshake still.
    yielding: usize,
    /// How many of those that end have none.
    leaving: usize,
    /// How long a handshake takes that ends with a certificate.
    usual: Duration,
}

/// Whether one more can come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Some,
    /// When somebody is gone.
    None,
    /// At the latest after this time somebody will have been silent for too long.
    Later(Duration),
}

/// Why somebody has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It said nothing, and others came.
    Silent,
    /// Too many of its address wait.
    Crowd,
    /// Its handshake took long, and others waited.
    Slow,
}

#[derive(Debug)]
struct Known {
    origin: Origin,
    place: Place,
    told: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Silent,
    Queued,
    Shaking,
    /// It has to go, and had a handshake.
    Yielding,
    /// It has to go.
    Leaving(Gone),
}

/// Whom an address stands for: an IPv6 host has the whole of a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(long) => {
                let host = u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(long.to_bits() & !host))
            }
            short @ IpAddr::V4(_) => short,
        })
    }
}

impl Entrance {
    /// A way in for so many who wait, and as many more whose handshake is under way.
    pub(super) fn new(waiting: usize, handshakes: usize) -> Self {
        Self {
            hall: Mutex::new(Hall {
                waiting,
                handshakes,
                next: 0,
                arrivals: HashMap::new(),
                silent: BTreeMap::new(),
                queues: HashMap::new(),
                turns: VecDeque::new(),
                queued: 0,
                shaking: VecDeque::new(),
                yielding: 0,
                leaving: 0,
                usual: Duration::ZERO,
            }),
            gone: Notify::new(),
        }
    }

    /// Waits until one more can come in. Where that takes it, one who says nothing ends, or one of
    /// an address that takes up too much; where everybody waits for good reason, the next ones do
    /// too, in the kernel.
    pub(super) async fn room(&self) {
        loop {
            let later = match self.hall().room(Instant::now()) {
                Room::Some => return,
                Room::None => None,
                Room::Later(later) => Some(later),
            };
            let gone = self.gone.notified();
            match later {
                None => gone.await,
                Some(later) => drop(timeout(later, gone).await),
            }
        }
    }

    /// Lets one in.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Arrival {
        let mut hall = self.hall();
        let number = hall.next;
        hall.next += 1;
        let told = Arc::new(Notify::new());
        let known = Known {
            origin: Origin::of(address),
            place: Place::Silent,
            told: Arc::clone(&told),
        };
        hall.arrivals.insert(number, known);
        hall.silent.insert(number, Instant::now());
        Arrival {
            entrance: Arc::clone(self),
            number,
            told,
        }
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody on the way in, until dropped.
#[derive(Debug)]
pub(super) struct Arrival {
    entrance: Arc<Entrance>,
    number: u64,
    told: Arc<Notify>,
}

impl Arrival {
    /// Its first bytes are there: it waits for its turn from now on.
    ///
    /// # Errors
    /// Where it has to go before its turn has come.
    pub(super) async fn turn(&self) -> Result<(), Gone> {
        self.entrance.hall().queue(self.number);
        loop {
            match self.place() {
                Place::Shaking => return Ok(()),
                Place::Leaving(why) => return Err(why),
                Place::Yielding => return Err(Gone::Slow),
                Place::Silent | Place::Queued => self.told.notified().await,
            }
        }
    }

    /// Waits until it has to go.
    pub(super) async fn sent_away(&self) {
        while !self.must_go() {
            self.told.notified().await;
        }
    }

    /// Its handshake, for as long as it may take; nothing where it has to make way for another's.
    pub(super) async fn shake<T>(&self, shake: impl Future<Output = T>) -> Option<T> {
        let begun = Instant::now();
        let overdue = async {
            while !self.must_go() {
                let patience = self.entrance.hall().patience();
                sleep(patience.saturating_sub(begun.elapsed()).max(LOOK)).await;
                self.entrance.hall().make_way(Instant::now());
            }
        };
        let ended = async {
            unless(overdue, self.sent_away()).await;
        };
        unless(shake, ended).await
    }

    /// Its handshake ended with a certificate.
    pub(super) fn welcome(self) {
        let mut hall = self.entrance.hall();
        let mut shaking = hall.shaking.iter();
        if let Some((_, since)) = shaking.find(|(number, _)| *number == self.number) {
            let took = since.elapsed();
            hall.usual = match hall.usual {
                Duration::ZERO => took,
                usual => (usual * 7 + took) / 8,
            };
        }
    }

    fn must_go(&self) -> bool {
        matches!(self.place(), Place::Leaving(_) | Place::Yielding)
    }

    fn place(&self) -> Place {
        let hall = self.entrance.hall();
        let known = hall.arrivals.get(&self.number);
        known.map_or(Place::Leaving(Gone::Silent), |known| known.place)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.entrance.hall().remove(self.number);
        self.entrance.gone.notify_one();
    }
}

/// What `work` gives, unless `end` comes first.
pub(super) async fn unless<T>(
    work: impl Future<Output = T>,
    end: impl Future<Output = ()>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut end = std::pin::pin!(end);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
        std::task::Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

impl Hall {
    /// Whether one more can come in; where not, and that helps, somebody is told to go. Who was only
    /// just let in has not had its turn to say anything.
    fn room(&mut self, now: Instant) -> Room {
        if self.arrivals.len() < self.waiting + self.handshakes {
            return Room::Some;
        }
        if self.leaving > 0 || self.yielding > 0 {
            return Room::None;
        }
        let oldest = self.silent.first_key_value();
        let oldest = oldest.map(|(number, since)| (*number, now.saturating_duration_since(*since)));
        if let Some((number, _)) = oldest.filter(|(_, silence)| *silence >= SILENCE) {
            self.send_away(number, Gone::Silent);
            return Room::None;
        }
        let longest = self.queues.values().max_by_key(|queue| queue.len());
        let crowd = longest.filter(|queue| queue.len() > self.waiting / PART);
        if let Some(number) = crowd.and_then(BTreeSet::last).copied() {
            self.send_away(number, Gone::Crowd);
            return Room::None;
        }
        oldest.map_or(Room::None, |(_, silence)| Room::Later(SILENCE - silence))
    }

    /// Who waits is told to go.
    fn send_away(&mut self, number: u64, why: Gone) {
        let Some(known) = self.arrivals.get_mut(&number) else {
            return;
        };
        let (origin, place) = (known.origin, known.place);
        known.place = Place::Leaving(why);
        known.told.notify_one();
        self.leaving += 1;
        match place {
            Place::Silent => drop(self.silent.remove(&number)),
            _ => self.unqueue(origin, number),
        }
    }

    fn queue(&mut self, number: u64) {
        if self.silent.remove(&number).is_none() {
            return;
        }
        let Some(known) = self.arrivals.get_mut(&number) else {
            return;
        };
        known.place = Place::Queued;
        let queue = self.queues.entry(known.origin).or_default();
        if queue.is_empty() {
            self.turns.push_back(known.origin);
        }
        queue.insert(number);
        self.queued += 1;
        self.serve();
        self.make_way(Instant::now());
    }

    fn unqueue(&mut self, origin: Origin, number: u64) {
        if let Some(queue) = self.queues.get_mut(&origin)
            && queue.remove(&number)
        {
            self.queued -= 1;
            if queue.is_empty() {
                self.queues.remove(&origin);
                self.turns.retain(|waits| *waits != origin);
            }
        }
    }

    /// Begins handshakes while there is room for them.
    fn serve(&mut self) {
        while self.shaking.len() + self.yielding < self.handshakes
            && let Some(origin) = self.turns.pop_front()
        {
            let queue = self.queues.get_mut(&origin);
            let Some(number) = queue.and_then(BTreeSet::pop_first) else {
                continue;
            };
            self.queued -= 1;
            match self.queues.get(&origin) {
                Some(queue) if !queue.is_empty() => self.turns.push_back(origin),
                _ => drop(self.queues.remove(&origin)),
            }
            if let Some(known) = self.arrivals.get_mut(&number) {
                known.place = Place::Shaking;
                known.told.notify_one();
                self.shaking.push_back((number, Instant::now()));
            }
        }
    }

    /// Ends handshakes that have taken too long, as many as others wait for. Half of the places are
    /// the oldest ones', who end by their own limit only: on a machine where no handshake is done
    /// within patience, nobody would ever come in otherwise, and so nobody know what is usual.
    fn make_way(&mut self, now: Instant) {
        let patience = self.patience();
        let kept = self.handshakes / 2;
        while self.queued > self.yielding
            && let Some((number, since)) = self.shaking.get(kept).copied()
            && now.saturating_duration_since(since) >= patience
        {
            self.shaking.remove(kept);
            if let Some(known) = self.arrivals.get_mut(&number) {
                known.place = Place::Yielding;
                known.told.notify_one();
                self.yielding += 1;
            }
        }
    }

    fn patience(&self) -> Duration {
        PATIENCE.max(self.usual * SLOW)
    }

    fn remove(&mut self, number: u64) {
        let Some(known) = self.arrivals.remove(&number) else {
            return;
        };
        match known.place {
            Place::Silent => drop(self.silent.remove(&number)),
            Place::Queued => self.unqueue(known.origin, number),
            Place::Shaking => self.shaking.retain(|(shaking, _)| *shaking != number),
            Place::Yielding => self.yielding -= 1,
            Place::Leaving(_) => self.leaving -= 1,
        }
        self.serve();
    }
}

#[cfg(test)]
mod tests;
