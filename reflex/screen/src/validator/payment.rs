//! Payment cards and bank accounts.

use super::{ends, symbols};

pub(super) fn card(candidate: &str) -> Option<usize> {
    let symbols = symbols(candidate);
    let digits: Vec<u8> = symbols
        .iter()
        .map(|(byte, _)| byte.wrapping_sub(b'0'))
        .collect();
    brand_lengths(&digits)?.iter().copied().find_map(|length| {
        let end = symbols.get(length - 1)?.1;
        (ends(candidate, end) && luhn(&digits[..length])).then_some(end)
    })
}

/// Lengths of the numbers that the brand with this prefix issues, the longest first.
fn brand_lengths(digits: &[u8]) -> Option<&'static [usize]> {
    let prefix = |count: usize| {
        digits.get(..count).map(|head| {
            head.iter()
                .fold(0_u32, |value, digit| value * 10 + u32::from(*digit))
        })
    };
    match (prefix(1)?, prefix(2)?, prefix(3)?, prefix(4)?) {
        (_, 34 | 37, _, _) => Some(&[15]), // American Express
        (_, 36 | 38 | 39, _, _) | (_, _, 300..=305 | 309, _) => Some(&[16, 14]), // Diners Club
        (_, _, _, 1800 | 2131) => Some(&[15]), // JCB, issued before 2008
        (_, _, _, 3528..=3589) => Some(&[19, 16]), // JCB
        (4, _, _, _) => Some(&[19, 16]),   // Visa
        (_, 51..=55, _, _) | (_, _, _, 2221..=2720) => Some(&[16]), // Mastercard
        (_, 65, _, _) | (_, _, 644..=649, _) | (_, _, _, 6011) => Some(&[19, 16]), // Discover
        (_, 62, _, _) => Some(&[19, 18, 17, 16]), // UnionPay
        (_, 50 | 56..=58 | 67, _, _) | (_, _, _, 6304 | 6390) => Some(&[19, 16]), // Maestro
        _ => None,
    }
}

pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit @ 0..=4) => digit * 2,
            (_, digit) => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

/// IBAN lengths by country, SWIFT IBAN Registry release 99.
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

pub(super) fn iban(candidate: &str) -> Option<usize> {
    let symbols = symbols(candidate);
    let country = [symbols.first()?.0, symbols.get(1)?.0];
    let index = IBAN_LENGTHS
        .binary_search_by(|(code, _)| (*code).cmp(&country))
        .ok()?;
    let length = IBAN_LENGTHS[index].1;
    let end = symbols.get(length - 1)?.1;
    let rotated = symbols[4..length].iter().chain(&symbols[..4]);
    let remainder = rotated.fold(0_u32, |rest, (byte, _)| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    (ends(candidate, end) && remainder == 1).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_country_table_is_sorted() {
        assert!(IBAN_LENGTHS.is_sorted_by(|left, right| left.0 < right.0));
    }
}
