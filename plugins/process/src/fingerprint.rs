//! Fingerprints of texts under a random key: they tell whether words hold one of the texts.

use keyhaul_core::{Result, SecretBytes, random};

use crate::forms;

/// The prime of the fingerprints' field, 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// The longest text that has a fingerprint.
pub(crate) const LONGEST: usize = forms::LONGEST;

/// How many places a generation has, and how many of them are taken.
const PLACES: usize = 4096;
const TAKEN: usize = PLACES / 2;

/// Remembers the latest texts, at least 2048 of them.
///
/// Whoever has the key can tell from the fingerprint of a short text what it was. So both are in
/// locked memory, as the texts were.
pub(crate) struct Fingerprints {
    key: SecretBytes,
    young: Generation,
    old: Generation,
}

impl Fingerprints {
    /// None yet.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub(crate) fn new() -> Result<Self> {
        let key = SecretBytes::try_init_with(8, |key| {
            random::fill(key)?;
            // Below the prime, and no small number.
            key[7] = key[7] & 0x0f | 0x08;
            Ok::<_, keyhaul_core::Error>(())
        })?;
        Ok(Self {
            key,
            young: Generation::new(),
            old: Generation::new(),
        })
    }

    /// Remembers `text`, which has 1 to [`LONGEST`] bytes.
    pub(crate) fn add(&mut self, text: &[u8]) {
        let print = self.print(text);
        if self.young.has(print) {
            return;
        }
        if self.young.taken == TAKEN {
            self.old = std::mem::replace(&mut self.young, Generation::new());
        }
        self.young.add(print, text.len());
    }

    /// Whether `text` is remembered, and what was remembered since with it.
    pub(crate) fn is_fresh(&self, text: &[u8]) -> bool {
        self.young.has(self.print(text))
    }

    /// For each byte of `words`, whether it is part of a text that is remembered.
    pub(crate) fn find(&self, words: &[u8]) -> Vec<bool> {
        let mut found = vec![false; words.len()];
        for len in (1..=LONGEST.min(words.len())).filter(|len| self.has_len(*len)) {
            self.find_of(len, words, &mut found);
        }
        found
    }

    fn find_of(&self, len: usize, words: &[u8], found: &mut [bool]) {
        let base = self.base();
        let power = power(base, len);
        let mut print = self.print(&words[..len]);
        for end in len..=words.len() {
            if self.young.has(print) || self.old.has(print) {
                found[end - len..end].fill(true);
            }
            if let Some(next) = words.get(end) {
                let gone = times(power, u64::from(words[end - len]) + 1);
                print = sum(step(print, base, *next), PRIME - gone);
            }
        }
    }

    fn has_len(&self, len: usize) -> bool {
        self.young.lens[len - 1] || self.old.lens[len - 1]
    }

    fn print(&self, text: &[u8]) -> u64 {
        let base = self.base();
        text.iter().fold(0, |print, byte| step(print, base, *byte))
    }

    fn base(&self) -> u64 {
        number(self.key.expose())
    }
}

/// A table of fingerprints, each at the first free place from the one that it names itself.
struct Generation {
    table: SecretBytes,
    taken: usize,
    /// Of which lengths there are any, from 1.
    lens: [bool; LONGEST],
}

impl Generation {
    fn new() -> Self {
        Self {
            table: SecretBytes::init_with(PLACES * 8, |_| {}),
            taken: 0,
            lens: [false; LONGEST],
        }
    }

    fn add(&mut self, print: u64, len: usize) {
        let place = self.place(print);
        self.table.expose_mut()[place * 8..][..8].copy_from_slice(&print.to_le_bytes());
        self.taken += 1;
        self.lens[len - 1] = true;
    }

    fn has(&self, print: u64) -> bool {
        self.at(self.place(print)) != 0
    }

    /// Where `print` stands, or would. Half of the places are free, so that there is an end to it.
    fn place(&self, print: u64) -> usize {
        let first = print as usize % PLACES;
        let places = (first..PLACES).chain(0..first);
        let mut places = places.skip_while(|place| ![0, print].contains(&self.at(*place)));
        places.next().unwrap_or(first)
    }

    fn at(&self, place: usize) -> u64 {
        number(&self.table.expose()[place * 8..][..8])
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn step(print: u64, base: u64, byte: u8) -> u64 {
    sum(times(print, base), u64::from(byte) + 1)
}

fn sum(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= PRIME { sum - PRIME } else { sum }
}

/// The product in the field. Its prime is one less than a power of two: what is above that power is
/// added below.
fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    sum(product as u64 & PRIME, (product >> 61) as u64)
}

fn power(base: u64, mut exponent: usize) -> u64 {
    let (mut result, mut square) = (1, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `find` must give, by looking for each text at each place.
    fn expected(texts: &[Vec<u8>], words: &[u8]) -> Vec<bool> {
        let mut found = vec![false; words.len()];
        for text in texts {
            for at in 0..words.len() {
                if words[at..].starts_with(text) {
                    found[at..at + text.len()].fill(true);
                }
            }
        }
        found
    }

    #[test]
    fn the_latest_texts_are_remembered_and_the_oldest_are_not_kept_for_ever() {
        let mut prints = Fingerprints::new().expect("randomness");
        let texts: Vec<_> = (0..2 * TAKEN + 1).map(|n| format!("text {n:06}")).collect();
        for text in &texts {
            prints.add(text.as_bytes());
            prints.add(text.as_bytes());
        }
        let known = |text: &String| prints.find(text.as_bytes()) == [true; 11];
        assert!(texts[texts.len() - TAKEN..].iter().all(known));
        assert!(!texts[..TAKEN].iter().any(known));
        assert!(prints.is_fresh(texts[2 * TAKEN].as_bytes()));
    }

    #[test]
    fn the_longest_text_is_found_and_a_byte_less_of_it_is_not() {
        let mut prints = Fingerprints::new().expect("randomness");
        let text: Vec<u8> = (0..LONGEST).map(|n| n as u8).collect();
        prints.add(&text);
        assert_eq!(prints.find(&text), [true; LONGEST]);
        assert_eq!(prints.find(&text[1..]), [false; LONGEST - 1]);
    }

    proptest! {
        #[test]
        fn every_text_is_found_where_it_stands_and_nowhere_else(
            texts in proptest::collection::vec(proptest::collection::vec(0..3_u8, 1..6), 0..4),
            words in proptest::collection::vec(0..3_u8, 0..40),
        ) {
            let mut prints = Fingerprints::new().expect("randomness");
            texts.iter().for_each(|text| prints.add(text));
            prop_assert_eq!(prints.find(&words), expected(&texts, &words));
        }
    }
}
