//! Check digits as rule files describe them: weights and a modulus.

use serde::Deserialize;

/// How the weighted sum `s` gives the check digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// `-s mod m`
    #[default]
    Minus,
    /// `s mod m`
    Plus,
    /// `(m - s mod m) mod 10`
    Decimal,
}

/// One check digit of a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checksum {
    /// Weights of the digits before the check digit. The last weight is that of the last digit before it, so a shorter
    /// number takes the last weights.
    weights: Vec<i32>,
    modulus: i32,
    #[serde(default)]
    form: Form,
    /// Added to the sum.
    #[serde(default)]
    offset: i32,
    /// The symbol that stands for a check value of ten; without it such a number is not given out.
    #[serde(default)]
    ten: Option<char>,
    /// Symbols that stand for the check values from 0, where they are not digits.
    #[serde(default)]
    symbols: Option<String>,
    /// Place of the check digit among the symbols, from 0; the last one without it.
    #[serde(default)]
    at: Option<usize>,
    /// Symbols before the weighted digits that are no part of the sum.
    #[serde(default)]
    skip: usize,
}

impl Checksum {
    /// Whether the check digit of `value`, whose letters and digits are its symbols, is right. Letters that it begins with,
    /// such as those of a country, are no symbols unless `skip` counts them.
    pub(crate) fn holds(&self, value: &str) -> bool {
        self.right(value).unwrap_or(false)
    }

    fn right(&self, value: &str) -> Option<bool> {
        let symbols: Vec<u8> = value
            .bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|byte| byte.to_ascii_uppercase())
            .skip_while(|byte| self.skip == 0 && byte.is_ascii_alphabetic())
            .collect();
        let at = self.at.or(symbols.len().checked_sub(1))?;
        let check = *symbols.get(at)?;
        let body = symbols.get(self.skip..at)?;
        let weights = self
            .weights
            .get(self.weights.len().checked_sub(body.len())?..)?;
        let mut sum = self.offset;
        for (symbol, weight) in body.iter().zip(weights) {
            sum += weight * i32::try_from(char::from(*symbol).to_digit(10)?).ok()?;
        }
        let rest = sum.rem_euclid(self.modulus);
        let value = match self.form {
            Form::Minus => (-rest).rem_euclid(self.modulus),
            Form::Plus => rest,
            Form::Decimal => (self.modulus - rest) % 10,
        };
        let expected = match &self.symbols {
            Some(symbols) => char::from(*symbols.as_bytes().get(usize::try_from(value).ok()?)?),
            None if value < 10 => char::from_digit(u32::try_from(value).ok()?, 10)?,
            None => self.ten?,
        };
        Some(char::from(check) == expected && body.iter().any(|symbol| *symbol != body[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(source: &str) -> Checksum {
        toml::from_str(source).expect("parses")
    }

    #[test]
    fn published_numbers_hold() {
        for (source, value, right) in [
            (
                "weights = [3, 7, 1, 3, 7, 1, 3, 7]\nmodulus = 10",
                "021000021",
                true,
            ),
            (
                "weights = [3, 7, 1, 3, 7, 1, 3, 7]\nmodulus = 10",
                "021000022",
                false,
            ),
            (
                "weights = [10, 9, 8, 7, 6, 5, 4, 3, 2]\nmodulus = 11",
                "943 476 5919",
                true,
            ),
            (
                "weights = [3, 2, 7, 6, 5, 4, 3, 2]\nmodulus = 11\nten = 'K'",
                "6-K",
                false,
            ),
            ("weights = [1, 2]\nmodulus = 11", "1", false),
            ("weights = [1, 2]\nmodulus = 11", "111", false),
            ("weights = [1, 2]\nmodulus = 11", "", false),
        ] {
            assert_eq!(checksum(source).holds(value), right, "{source} {value}");
        }
    }
}
