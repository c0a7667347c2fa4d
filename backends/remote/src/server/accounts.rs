//! What each certificate's holder takes up: connections, bodies under way, and refusals that have to
//! be recorded.
//!
//! A refused request costs the one who asks nothing, and the service a record on its disk. Each
//! holder has some to spend, and gets a few more every second. Who has spent them is *limited* for a
//! while: whatever it asks is answered `RateLimited` before anything is looked at, and the audit has
//! one record when that begins and one with the number of such requests when it ends.
//!
//! A holder is a URI, whatever its certificates. A certificate that is nobody's, or no longer, spends
//! for itself alone: whoever stole one that is revoked by now keeps its renewed holder from nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::bodies;

/// How many refusals of one holder are recorded at once.
const REFUSALS: i64 = 2000;
/// How long it takes to get another.
const REFILL: Duration = Duration::from_millis(500);
/// How many there are again when a limit ends: one that ends and begins costs two records.
const AGAIN: i64 = 60;
/// How many accounts there are before those that say nothing are looked for.
const MANY: usize = 1024;

/// The accounts of all holders.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<Known>);

/// Whose account it is.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Holder {
    /// Of whoever shows this URI.
    Uri(Arc<str>),
    /// Of one certificate that is nobody's, by its SHA-256.
    Certificate([u8; 32]),
}

#[derive(Debug, Default)]
struct Known {
    accounts: HashMap<Holder, Arc<Account>>,
    /// How many there were left when they were last swept.
    swept: usize,
}

/// One holder's account.
#[derive(Debug)]
pub(super) struct Account {
    uri: Arc<str>,
    book: Mutex<Book>,
    /// For bodies under way, in KiB.
    bodies: Arc<Semaphore>,
}

#[derive(Debug)]
struct Book {
    connections: usize,
    /// Refusals to spend; less than none where many were refused at once.
    left: i64,
    /// Up to when `left` is reckoned.
    reckoned: Instant,
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    end: Instant,
    /// How many requests were answered without a record.
    unrecorded: u64,
}

/// What recording refusals comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// They are to be recorded.
    Paid,
    /// They are to be recorded as the last ones: the holder is limited for so long.
    Limited(Duration),
    /// They are not recorded, and nothing of the request is answered for so long.
    Refused(Duration),
}

impl Accounts {
    /// The account of whoever shows this URI.
    pub(super) fn of(&self, uri: &Arc<str>) -> Arc<Account> {
        self.account(Holder::Uri(Arc::clone(uri)), uri)
    }

    /// The account of a certificate that is nobody's, or no longer.
    pub(super) fn of_certificate(&self, fingerprint: [u8; 32], uri: &Arc<str>) -> Arc<Account> {
        self.account(Holder::Certificate(fingerprint), uri)
    }

    fn account(&self, holder: Holder, uri: &Arc<str>) -> Arc<Account> {
        let mut known = lock(&self.0);
        if let Some(account) = known.accounts.get(&holder) {
            return Arc::clone(account);
        }
        if known.accounts.len() >= MANY.max(known.swept * 2) {
            let now = Instant::now();
            known
                .accounts
                .retain(|_, account| Arc::strong_count(account) > 1 || !account.is_blank(now));
            known.swept = known.accounts.len();
        }
        let account = Arc::new(Account {
            uri: Arc::clone(uri),
            book: Mutex::new(Book {
                connections: 0,
                left: REFUSALS,
                reckoned: Instant::now(),
                limit: None,
            }),
            bodies: Arc::new(Semaphore::new(bodies::SHARE)),
        });
        known.accounts.insert(holder, Arc::clone(&account));
        account
    }

    /// Ends all limits, whatever their time: who was limited, and how many requests had no record.
    pub(super) fn end_all(&self) -> Vec<(Arc<str>, u64)> {
        let known = lock(&self.0);
        let accounts = known.accounts.values();
        accounts
            .filter_map(|account| Some((Arc::clone(&account.uri), account.end()?)))
            .collect()
    }
}

impl Account {
    /// Room for one more connection, where there are fewer than `most`.
    pub(super) fn connect(self: &Arc<Self>, most: usize) -> Option<Share> {
        let mut book = lock(&self.book);
        if book.connections >= most {
            return None;
        }
        book.connections += 1;
        Some(Share(Arc::clone(self)))
    }

    /// Its room for bodies under way, in KiB.
    pub(super) fn bodies(&self) -> &Arc<Semaphore> {
        &self.bodies
    }

    /// Whether a request is looked at.
    ///
    /// # Errors
    /// Where it is not: how long that will be so.
    pub(super) fn admit(&self) -> Result<(), Duration> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Result<(), Duration> {
        match &mut lock(&self.book).limit {
            Some(limit) if now < limit.end => {
                limit.unrecorded += 1;
                Err(limit.end - now)
            }
            _ => Ok(()),
        }
    }

    /// Takes what so many refusals cost.
    pub(super) fn charge(&self, refusals: usize) -> Charge {
        self.charge_at(refusals, Instant::now())
    }

    fn charge_at(&self, refusals: usize, now: Instant) -> Charge {
        let mut book = lock(&self.book);
        book.reckon(now);
        if let Some(limit) = &mut book.limit
            && now < limit.end
        {
            // It was under way when the limit began.
            limit.unrecorded += 1;
            return Charge::Refused(limit.end - now);
        }
        book.left -= i64::try_from(refusals).unwrap_or(i64::MAX / 2);
        // Where a limit is over, that is told in a moment, and another can begin.
        if book.left > 0 || book.limit.is_some() {
            return Charge::Paid;
        }
        let missing = u32::try_from(AGAIN - book.left).unwrap_or(u32::MAX);
        let time = REFILL * missing;
        book.limit = Some(Limit {
            end: now + time,
            unrecorded: 0,
        });
        Charge::Limited(time)
    }

    /// Ends the limit, where there is one: how many requests had no record.
    pub(super) fn end(&self) -> Option<u64> {
        let limit = lock(&self.book).limit.take();
        limit.map(|limit| limit.unrecorded)
    }

    /// Whether it says no more than a fresh one would.
    fn is_blank(&self, now: Instant) -> bool {
        let mut book = lock(&self.book);
        book.reckon(now);
        book.connections == 0 && book.left == REFUSALS && book.limit.is_none()
    }
}

impl Book {
    fn reckon(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.reckoned);
        let more = passed.as_millis() / REFILL.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = (self.left + i64::from(more)).min(REFUSALS);
        self.reckoned += REFILL * more;
    }
}

/// A connection's place in the account of its holder.
#[derive(Debug)]
pub(super) struct Share(Arc<Account>);

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.0.book).connections -= 1;
    }
}

/// What a panic left behind is sound: nothing here is changed in steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(accounts: &Accounts, uri: &str) -> Arc<Account> {
        accounts.of(&uri.into())
    }

    #[test]
    fn connections_have_an_end_for_each_holder_and_room_comes_back() {
        let accounts = Accounts::default();
        let one = account(&accounts, "spiffe://site/node/a");
        let shares = [one.connect(2), one.connect(2)];
        assert!(shares.iter().all(Option::is_some));
        // The same holder by another connection, which a new certificate is not.
        let again = account(&accounts, "spiffe://site/node/a");
        assert!(again.connect(2).is_none());
        let other = account(&accounts, "spiffe://site/node/b");
        assert!(other.connect(2).is_some(), "the control: somebody else");
        drop(shares);
        assert!(again.connect(2).is_some());
    }

    #[test]
    fn who_has_spent_all_refusals_is_limited_for_a_while_and_counted() {
        let accounts = Accounts::default();
        let (node, other) = (account(&accounts, "n"), account(&accounts, "o"));
        let now = lock(&node.book).reckoned;
        for _ in 0..7 {
            assert_eq!(node.charge_at(256, now), Charge::Paid);
        }
        assert_eq!(node.admit_at(now), Ok(()), "1,792 of 2,000");
        // 48 more than it has, and 60 to begin with again: 108 halves of a second.
        let time = Duration::from_secs(54);
        assert_eq!(node.charge_at(256, now), Charge::Limited(time));
        assert_eq!(node.admit_at(now), Err(time));
        assert_eq!(node.charge_at(1, now), Charge::Refused(time));
        assert_eq!(other.admit_at(now), Ok(()), "the control: somebody else");
        let later = now + time - Duration::from_millis(1);
        assert_eq!(node.admit_at(later), Err(Duration::from_millis(1)));
        let over = now + time;
        assert_eq!(node.admit_at(over), Ok(()));
        assert_eq!(accounts.end_all(), [("n".into(), 3)]);
        assert_eq!(node.end(), None, "told once");
        assert_eq!(node.charge_at(59, over), Charge::Paid);
        let again = node.charge_at(1, over);
        assert_eq!(again, Charge::Limited(Duration::from_secs(30)));
    }

    #[test]
    fn a_certificate_that_is_nobodys_spends_for_itself() {
        let accounts = Accounts::default();
        let uri = "spiffe://site/node/a".into();
        let (revoked, other) = ([1; 32], [2; 32]);
        let spent = accounts.of_certificate(revoked, &uri).charge(2000);
        assert!(matches!(spent, Charge::Limited(_)), "{spent:?}");
        assert!(accounts.of_certificate(revoked, &uri).admit().is_err());
        assert_eq!(accounts.of(&uri).admit(), Ok(()), "who has a new one");
        assert_eq!(accounts.of_certificate(other, &uri).admit(), Ok(()));
        let ended = accounts.end_all();
        assert_eq!(ended, [(uri, 1)], "told by the name that it showed");
    }

    #[test]
    fn accounts_that_say_nothing_are_forgotten_and_others_are_not() {
        let accounts = Accounts::default();
        let debtor = account(&accounts, "debtor");
        debtor.charge(1999);
        drop(debtor);
        for number in 0..10 * MANY {
            drop(account(&accounts, &number.to_string()));
        }
        assert!(lock(&accounts.0).accounts.len() <= MANY);
        let left = lock(&account(&accounts, "debtor").book).left;
        assert!((1..REFUSALS).contains(&left), "{left}");
    }
}
