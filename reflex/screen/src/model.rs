//! The model: a linear score of every window of a reading, trained (`bench/screen/train.py`) and committed as integers.
//!
//! A reading is cut into tokens, each token adds the weights of the features that end at it, and a window's score is
//! their sum over the square root of its length. The text's score is that of its worst window: what stands around an
//! attack neither dilutes nor excuses it. Integer arithmetic throughout, so that every machine gives the same bytes.

mod feature;
mod lexicon;
mod token;

use std::ops::Range;

use feature::History;
use lexicon::Lexicon;

use crate::screening::Severity;

/// First bytes of a model file.
const MAGIC: &[u8; 8] = b"OCTOINJ1";

/// Tokens of the windows, small ones for an attack in a document, large ones for a long play; each steps a quarter.
const WINDOWS: [usize; 3] = [16, 48, 128];

/// A window shorter than this counts as one of this length: three words prove little.
const MIN_LENGTH: usize = 6;

/// Words of the lexicon in a text that may be read with other letters, and the letters of each: short ones come by chance.
const MIN_KNOWN: usize = 2;
const MIN_KNOWN_LETTERS: usize = 4;

/// A thousandth of a logit, the unit of scores before they become a probability.
pub(crate) type Logit = i32;

/// Chances in thousandths of the logits from -8 to 8 in steps of a quarter.
const CHANCES: [u16; 65] = [
    0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5, 7, 9, 11, 14, 18, 23, 29, 37, 47, 60, 76, 95, 119, 148,
    182, 223, 269, 321, 378, 438, 500, 562, 622, 679, 731, 777, 818, 852, 881, 905, 924, 940, 953,
    963, 971, 977, 982, 986, 989, 991, 993, 995, 996, 997, 998, 998, 999, 999, 999, 999, 999, 1000,
    1000,
];

/// A trained model.
#[derive(Debug)]
pub(crate) struct Model {
    lexicon: Lexicon,
    weights: Vec<i8>,
    /// Number of buckets less one; they are a power of two.
    mask: u32,
    /// Logit of a window without features.
    bias: Logit,
    /// Logit of one unit of weight in a window of one token, in 2^-16 thousandths.
    scale: i64,
    /// From these logits on a window is a finding of medium and of high severity.
    flag: Logit,
    block: Logit,
}

/// The worst window of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) logit: Logit,
    /// Bytes of the reading.
    pub(crate) range: Range<usize>,
}

impl Model {
    /// Reads a model: magic, binary logarithm of the number of buckets, bias, scale and the two thresholds as
    /// little-endian integers of 32 bits, then one byte for each bucket; and the lexicon that it was trained with.
    pub(crate) fn load(file: &[u8], lexicon: &str) -> Result<Self, String> {
        let rest = file.strip_prefix(MAGIC).ok_or("is not a model file")?;
        let (header, weights) = rest.split_at_checked(20).ok_or("ends in its header")?;
        let mut numbers = [0; 5];
        for (number, bytes) in numbers.iter_mut().zip(header.chunks_exact(4)) {
            *number = i32::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        let [bits, bias, scale, flag, block] = numbers;
        if !(8..=20).contains(&bits) || weights.len() != 1 << bits {
            return Err(format!("has {} weights for {bits} bits", weights.len()));
        }
        if !(0..1 << 24).contains(&scale) || bias.abs() > 1 << 20 || flag > block {
            return Err("has a scale, bias or threshold out of range".to_owned());
        }
        Ok(Self {
            lexicon: Lexicon::parse(lexicon)?,
            weights: weights.iter().map(|byte| byte.cast_signed()).collect(),
            mask: (1 << bits) - 1,
            bias,
            scale: scale.into(),
            flag,
            block,
        })
    }

    /// How grave a window of this logit is; None if it is no finding.
    pub(crate) const fn severity(&self, logit: Logit) -> Option<Severity> {
        if logit >= self.block {
            Some(Severity::High)
        } else if logit >= self.flag {
            Some(Severity::Medium)
        } else {
            None
        }
    }

    /// Whether there are words in `text` that the lexicon knows. In a text whose letters were put in the place of others for
    /// no reason there are hardly any, and it need not be scored.
    pub(crate) fn reads(&self, text: &str) -> bool {
        let mut known = 0;
        token::tokens(text, &self.lexicon, |token, letters| {
            known += usize::from(token.class.is_some() && letters.len() >= MIN_KNOWN_LETTERS);
        });
        known >= MIN_KNOWN
    }

    /// The worst window of `text`; None if it has no token.
    pub(crate) fn worst(&self, text: &str) -> Option<Window> {
        let mut history = History::default();
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(text.len() / 5 + 1);
        let mut sums: Vec<i32> = Vec::with_capacity(text.len() / 5 + 2);
        let mut sum = 0;
        sums.push(sum);
        token::tokens(text, &self.lexicon, |token, letters| {
            history.features(&token, letters, |hash| {
                sum += i32::from(self.weights[(hash & self.mask) as usize]);
            });
            sums.push(sum);
            ranges.push(token.range);
        });
        let score = |window: &Range<usize>| {
            let weight = i64::from(sums[window.end] - sums[window.start]);
            let length = window.len().max(MIN_LENGTH);
            weight * i64::from(INVERSE_ROOTS[length])
        };
        let worst = windows(ranges.len()).max_by_key(|window| (score(window), window.end))?;
        // 2^-16 of the scale and 2^-12 of the roots.
        let logit = (score(&worst) * self.scale) >> 28;
        let logit = logit.clamp(-100_000, 100_000) + i64::from(self.bias);
        Some(Window {
            logit: i32::try_from(logit).unwrap_or_default(),
            range: ranges[worst.start].start..ranges[worst.end - 1].end,
        })
    }
}

/// The chance of a logit, in thousandths: a straight line between the steps of the logistic function.
pub(crate) fn chance(logit: Logit) -> u16 {
    let at = u32::try_from(logit.clamp(-8000, 8000) + 8000).unwrap_or_default();
    let (step, rest) = ((at / 250) as usize, at % 250);
    let low = u32::from(CHANCES[step]);
    let high = u32::from(CHANCES[(step + 1).min(CHANCES.len() - 1)]);
    u16::try_from(low + (high - low) * rest / 250).unwrap_or(1000)
}

/// The windows of a reading of `count` tokens.
fn windows(count: usize) -> impl Iterator<Item = Range<usize>> {
    WINDOWS
        .into_iter()
        .enumerate()
        .flat_map(move |(index, size)| {
            // All of a short reading is one window, once.
            let repeats = index > 0 && count <= WINDOWS[index - 1];
            let step = size / 4;
            let steps = if repeats || count == 0 {
                0
            } else {
                1 + count.saturating_sub(size).div_ceil(step)
            };
            (0..steps).map(move |number| number * step..(number * step + size).min(count))
        })
}

/// 2^12 over the square root of the index.
static INVERSE_ROOTS: [u16; WINDOWS[2] + 1] = inverse_roots();

const fn inverse_roots() -> [u16; WINDOWS[2] + 1] {
    let mut roots = [0; WINDOWS[2] + 1];
    let mut index = 1;
    while index < roots.len() {
        // The largest root with root^2 * index <= 2^24.
        let mut root: u32 = 4096;
        while root * root > (1 << 24) / index as u32 {
            root -= 1;
        }
        roots[index] = root as u16;
        index += 1;
    }
    roots
}

/// What a trainer sees of a text: the readings of it, and how the model cuts them up.
#[cfg(feature = "training")]
pub mod training {
    use std::ops::Range;

    use super::feature::History;
    use super::{Lexicon, MIN_LENGTH, token, windows};
    use crate::{Ruleset, detect};

    /// First bytes of a model file.
    pub const MAGIC: &[u8; 8] = super::MAGIC;

    /// One reading: the hashes of the features of each token.
    pub struct Reading {
        hashes: Vec<u32>,
        ends: Vec<usize>,
    }

    impl Reading {
        /// The readings of `text` without its personal data, as it stands last.
        ///
        /// # Panics
        ///
        /// If `lexicon` is not one.
        #[must_use]
        pub fn all(text: &str, ruleset: &Ruleset, lexicon: &str) -> Vec<Self> {
            let lexicon = Lexicon::parse(lexicon).expect("a lexicon");
            let (readings, _, _) = detect::personal_data(text, ruleset);
            let reading = |text: &str| {
                let mut own = Self {
                    hashes: Vec::new(),
                    ends: Vec::new(),
                };
                let mut history = History::default();
                token::tokens(text, &lexicon, |token, letters| {
                    history.features(&token, letters, |hash| own.hashes.push(hash));
                    own.ends.push(own.hashes.len());
                });
                own
            };
            readings
                .iter()
                .map(|read| reading(read.text()))
                .filter(|reading| !reading.ends.is_empty())
                .collect()
        }

        /// The windows, in tokens.
        pub fn windows(&self) -> impl Iterator<Item = Range<usize>> {
            windows(self.ends.len())
        }

        /// The hashes of the features of a window.
        #[must_use]
        pub fn hashes(&self, window: &Range<usize>) -> &[u32] {
            let start = window
                .start
                .checked_sub(1)
                .map_or(0, |last| self.ends[last]);
            &self.hashes[start..self.ends[window.end - 1]]
        }

        /// What the sum of weights of a window is divided by: the square root of its length.
        #[must_use]
        pub fn norm(window: &Range<usize>) -> f64 {
            (window.len().max(MIN_LENGTH) as f64).sqrt()
        }
    }
}
