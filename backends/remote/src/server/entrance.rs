//! The way in: who has said nothing yet, who waits for a handshake, and whose is under way.
//!
//! Until its first bytes are there, a connection costs a descriptor and no more. Then it waits its
//! turn: addresses take turns, and the connections of one come in the order in which they were made,
//! so that one host which floods the service delays itself. Of those whose handshake takes too long
//! the oldest ends where somebody else waits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

/// How many handshakes are under way at the same time: whoever has shown no certificate takes no
/// more of the server than that, and memory for no more of them.
pub(super) const HANDSHAKES: usize = 256;
/// How many connections wait for their first bytes or for their turn.
pub(super) const WAITING: usize = 4096;
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
    guests: HashMap<u64, Known>,
    /// Those that have said nothing, the oldest first.
    silent: BTreeSet<u64>,
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
    Leaving,
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
                guests: HashMap::new(),
                silent: BTreeSet::new(),
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
        while !self.hall().has_room() {
            self.gone.notified().await;
        }
    }

    /// Lets one in.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Guest {
        let mut hall = self.hall();
        let number = hall.next;
        hall.next += 1;
        let told = Arc::new(Notify::new());
        let known = Known {
            origin: Origin::of(address),
            place: Place::Silent,
            told: Arc::clone(&told),
        };
        hall.guests.insert(number, known);
        hall.silent.insert(number);
        Guest {
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
pub(super) struct Guest {
    entrance: Arc<Entrance>,
    number: u64,
    told: Arc<Notify>,
}

impl Guest {
    /// Its first bytes are there: it waits for its turn from now on. Whether it came, or it has to
    /// go.
    pub(super) async fn turn(&self) -> bool {
        self.entrance.hall().queue(self.number);
        loop {
            match self.place() {
                Place::Shaking => return true,
                Place::Leaving | Place::Yielding => return false,
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
            hall.usual = (hall.usual * 7 + took) / 8;
        }
    }

    fn must_go(&self) -> bool {
        matches!(self.place(), Place::Leaving | Place::Yielding)
    }

    fn place(&self) -> Place {
        let hall = self.entrance.hall();
        let known = hall.guests.get(&self.number);
        known.map_or(Place::Leaving, |known| known.place)
    }
}

impl Drop for Guest {
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
    /// Whether one more can come in; where not, and that helps, somebody is told to go.
    fn has_room(&mut self) -> bool {
        if self.guests.len() < self.waiting + self.handshakes {
            return true;
        }
        if self.leaving == 0 && self.yielding == 0 {
            let longest = self.queues.values().max_by_key(|queue| queue.len());
            let crowd = longest.filter(|queue| queue.len() > self.waiting / PART);
            let newest = || crowd.and_then(BTreeSet::last);
            if let Some(number) = self.silent.first().or_else(newest).copied() {
                self.send_away(number);
            }
        }
        false
    }

    /// Who waits is told to go.
    fn send_away(&mut self, number: u64) {
        let Some(known) = self.guests.get_mut(&number) else {
            return;
        };
        let (origin, place) = (known.origin, known.place);
        known.place = Place::Leaving;
        known.told.notify_one();
        self.leaving += 1;
        match place {
            Place::Silent => drop(self.silent.remove(&number)),
            _ => self.unqueue(origin, number),
        }
    }

    fn queue(&mut self, number: u64) {
        if !self.silent.remove(&number) {
            return;
        }
        let Some(known) = self.guests.get_mut(&number) else {
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
            if let Some(known) = self.guests.get_mut(&number) {
                known.place = Place::Shaking;
                known.told.notify_one();
                self.shaking.push_back((number, Instant::now()));
            }
        }
    }

    /// Ends the oldest handshakes that have taken too long, as many as others wait for.
    fn make_way(&mut self, now: Instant) {
        let patience = self.patience();
        while self.queued > self.yielding
            && let Some((number, since)) = self.shaking.front().copied()
            && now.saturating_duration_since(since) >= patience
        {
            self.shaking.pop_front();
            if let Some(known) = self.guests.get_mut(&number) {
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
        let Some(known) = self.guests.remove(&number) else {
            return;
        };
        match known.place {
            Place::Silent => drop(self.silent.remove(&number)),
            Place::Queued => self.unqueue(known.origin, number),
            Place::Shaking => self.shaking.retain(|(shaking, _)| *shaking != number),
            Place::Yielding => self.yielding -= 1,
            Place::Leaving => self.leaving -= 1,
        }
        self.serve();
    }
}

#[cfg(test)]
mod tests;
