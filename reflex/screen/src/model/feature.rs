//! Features: what the model sees of a token and of those before it, each hashed into a bucket of the weights.

use crate::model::lexicon::Class;
use crate::model::token::Token;

/// Classed tokens that are remembered: a pattern such as *ignore … instructions* spans so many at most.
const MEMORY: usize = 5;

/// Tokens between two classed ones that still belong together.
const NEAR: u32 = 3;
const FAR: u32 = 9;

/// The kinds of features; they keep equal hashes of different things apart.
#[derive(Clone, Copy)]
enum Kind {
    Word = 1,
    Pair,
    Letters,
    Class,
    ClassFirst,
    ClassPair,
    ClassFarPair,
    ClassTriple,
    ClassThenWord,
    WordThenClass,
}

/// The tokens before, as far as features need them.
#[derive(Debug, Default)]
pub(crate) struct History {
    position: u32,
    word: u32,
    class: Option<Class>,
    /// Classed tokens, the latest first.
    classed: [Option<(Class, u32)>; MEMORY],
}

impl History {
    /// Calls `each` with the hash of every feature that ends at `token`.
    pub(crate) fn features(&mut self, token: &Token, letters: &[char], mut each: impl FnMut(u32)) {
        let word = token.hash;
        let last = if token.first { 1 } else { self.word };
        each(mixed(Kind::Word, [word, 0, 0]));
        each(mixed(Kind::Pair, [last, word, 0]));
        for four in letters.windows(4) {
            let [a, b, c, d] = [four[0], four[1], four[2], four[3]].map(u32::from);
            each(mixed(Kind::Letters, [a << 16 ^ b, c << 16 ^ d, 0]));
        }
        if let Some(Class(class)) = self.class
            && !token.first
        {
            each(mixed(Kind::ClassThenWord, [class.into(), word, 0]));
        }
        if let Some(class) = token.class {
            self.classes(token, class, last, &mut each);
        }
        self.word = word;
        self.class = token.class;
        self.position += 1;
    }

    fn classes(&mut self, token: &Token, class: Class, last: u32, each: &mut impl FnMut(u32)) {
        let own = u32::from(class.0);
        each(mixed(Kind::Class, [own, 0, 0]));
        each(mixed(Kind::WordThenClass, [last, own, 0]));
        if token.first {
            each(mixed(Kind::ClassFirst, [own, 0, 0]));
        }
        for (index, before) in self.classed.iter().enumerate() {
            let Some((Class(before), at)) = *before else {
                break;
            };
            let distance = self.position - at;
            if distance > FAR {
                break;
            }
            let kind = if distance <= NEAR {
                Kind::ClassPair
            } else {
                Kind::ClassFarPair
            };
            each(mixed(kind, [before.into(), own, 0]));
            for earlier in &self.classed[index + 1..] {
                let Some((Class(earlier), at)) = *earlier else {
                    break;
                };
                if self.position - at > FAR {
                    break;
                }
                each(mixed(
                    Kind::ClassTriple,
                    [earlier.into(), before.into(), own],
                ));
            }
        }
        self.classed.rotate_right(1);
        self.classed[0] = Some((class, self.position));
    }
}

/// Mixes a feature into 32 bits: multiply and add, then the finaliser of MurmurHash3.
const fn mixed(kind: Kind, parts: [u32; 3]) -> u32 {
    let mut hash = (kind as u32).wrapping_mul(0x9E37_79B9);
    hash = (hash ^ parts[0]).wrapping_mul(0x85EB_CA6B).rotate_left(13);
    hash = (hash ^ parts[1]).wrapping_mul(0xC2B2_AE35).rotate_left(13);
    hash = (hash ^ parts[2]).wrapping_mul(0x27D4_EB2F);
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85EB_CA6B);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xC2B2_AE35);
    hash ^ hash >> 16
}
