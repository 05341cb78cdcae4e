//! Numbers that a state gives a person, where weights alone don't tell right from wrong.

use super::payment::luhn;
use super::{digits, symbols};

/// US social security number.
pub(super) fn ssn(candidate: &str) -> bool {
    let digits = digits(candidate);
    let number = |range: std::ops::Range<usize>| {
        digits
            .get(range)
            .map(|part| part.iter().fold(0, |value, digit| value * 10 + digit))
    };
    let (Some(area), Some(group), Some(serial)) = (number(0..3), number(3..5), number(5..9)) else {
        return false;
    };
    let issued = digits.len() == 9 && !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0;
    // The number printed on specimen cards; it was cancelled in 1943.
    let specimen = (area, group, serial) == (78, 5, 1120);
    let uniform = digits.iter().all(|digit| *digit == digits[0]);
    issued && !specimen && !uniform
}

/// US individual taxpayer number: area 9xx, group 50-65, 70-88, 90-92 or 94-99 (IRS).
pub(super) fn itin(candidate: &str) -> bool {
    let digits = digits(candidate);
    let group = digits.get(3..5).map(|group| group[0] * 10 + group[1]);
    digits.len() == 9
        && digits[0] == 9
        && matches!(group, Some(50..=65 | 70..=88 | 90..=92 | 94..=99))
}

/// US employer number: prefixes that the IRS has given out.
pub(super) fn ein(candidate: &str) -> bool {
    let digits = digits(candidate);
    let never = [
        0, 7, 8, 9, 17, 18, 19, 28, 29, 49, 69, 70, 78, 79, 89, 96, 97,
    ];
    digits.len() == 9 && !never.contains(&(digits[0] * 10 + digits[1]))
}

/// UK national insurance number: prefixes that are not used.
pub(super) fn nino(candidate: &str) -> bool {
    let head: Vec<u8> = symbols(candidate)
        .iter()
        .take(2)
        .map(|(byte, _)| *byte)
        .collect();
    let [first, second] = head[..] else {
        return false;
    };
    !b"DFIQUV".contains(&first)
        && !b"DFIOQUV".contains(&second)
        && !matches!(
            &head[..],
            b"BG" | b"GB" | b"NK" | b"KN" | b"TN" | b"NT" | b"ZZ"
        )
}

/// UK unique taxpayer reference: the first digit checks the others.
pub(super) fn utr(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 10 {
        return false;
    }
    let weights = [6, 7, 8, 9, 10, 5, 4, 3, 2];
    let sum: u32 = digits[1..]
        .iter()
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum();
    let check = [2, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1][(sum % 11) as usize];
    check == digits[0] && digits[1..].iter().any(|digit| *digit != digits[1])
}

/// Luhn digit over all digits.
pub(super) fn luhn_digits(candidate: &str) -> bool {
    let digits: Vec<u8> = candidate
        .bytes()
        .filter(u8::is_ascii_digit)
        .map(|byte| byte - b'0')
        .collect();
    digits.len() >= 2 && luhn(&digits)
}

/// Luhn digit over the last ten digits: personal and organisation numbers of Sweden, with a century or without.
pub(super) fn swedish(candidate: &str) -> bool {
    let digits: Vec<u8> = candidate
        .bytes()
        .filter(u8::is_ascii_digit)
        .map(|byte| byte - b'0')
        .collect();
    matches!(digits.len(), 10 | 12) && luhn(&digits[digits.len() - 10..])
}

/// US national provider identifier: Luhn digit with the prefix 80840 of health cards.
pub(super) fn npi(candidate: &str) -> bool {
    let digits = candidate
        .bytes()
        .filter(u8::is_ascii_digit)
        .map(|byte| byte - b'0');
    let whole: Vec<u8> = [8, 0, 8, 4, 0].into_iter().chain(digits).collect();
    whole.len() == 15
        && matches!(whole[5], 1 | 2)
        && whole[6..].iter().any(|digit| *digit != whole[6])
        && luhn(&whole)
}

/// German insurance number of health: a letter as its two places in the alphabet, then weights 1 and 2 with digit sums.
pub(super) fn kvnr(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    let Some(letter) = symbols
        .first()
        .filter(|(byte, _)| byte.is_ascii_uppercase())
    else {
        return false;
    };
    let place = u32::from(letter.0 - b'A') + 1;
    let mut all = vec![place / 10, place % 10];
    all.extend(digits(candidate));
    all.len() == 11 && cross_sum(&all[..10], &[1, 2]) % 10 == all[10]
}

/// German insurance number of pension: the letter as its place in the alphabet, weights of its own.
pub(super) fn rvnr(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    if symbols.len() != 12 || !symbols[8].0.is_ascii_uppercase() {
        return false;
    }
    let place = u32::from(symbols[8].0 - b'A') + 1;
    let digits = digits(candidate);
    if digits.len() != 11 {
        return false;
    }
    let mut all = digits[..8].to_vec();
    all.extend([place / 10, place % 10]);
    all.extend(&digits[8..10]);
    cross_sum(&all, &[2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1]) % 10 == digits[10]
}

/// Sum of the digit sums of digits by weights in turn.
fn cross_sum(digits: &[u32], weights: &[u32]) -> u32 {
    let products = digits
        .iter()
        .zip(weights.iter().cycle())
        .map(|(digit, weight)| digit * weight);
    products.map(|product| product / 10 + product % 10).sum()
}

/// ISO 7064 modulo 11,10: tax numbers of Germany and Croatia.
pub(super) fn mod_11_10(candidate: &str) -> bool {
    let digits = digits(candidate);
    let Some((check, body)) = digits.split_last() else {
        return false;
    };
    let product = body.iter().fold(10, |product, digit| {
        let sum = (digit + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    body.len() >= 8 && (11 - product) % 10 == *check && body.iter().any(|digit| *digit != body[0])
}

/// German tax number of a person: modulo 11,10, and of the first ten digits exactly one stands two or three times.
pub(super) fn steuer_id(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 11 || digits[0] == 0 || !mod_11_10(candidate) {
        return false;
    }
    let mut counts = [0; 10];
    for digit in &digits[..10] {
        counts[*digit as usize] += 1;
    }
    let repeated = counts.iter().filter(|count| **count > 1).count();
    repeated == 1 && counts.iter().all(|count| *count <= 3)
}

/// Verhoeff's check digit: India's Aadhaar, of 12 digits, and its virtual ids, of 16. None reads alike both ways.
pub(super) fn verhoeff(candidate: &str) -> bool {
    const MULTIPLY: [[u8; 10]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
        [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
        [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
        [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const PERMUTE: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let digits = digits(candidate);
    let palindrome = digits.iter().eq(digits.iter().rev());
    let mut check = 0;
    for (place, digit) in digits.iter().rev().enumerate() {
        let permuted = (0..place % 8).fold(*digit as usize, |digit, _| usize::from(PERMUTE[digit]));
        check = usize::from(MULTIPLY[check][permuted]);
    }
    matches!(digits.len(), 12 | 16) && check == 0 && !palindrome
}

/// Spanish DNI and NIE: the letter is the number modulo 23.
pub(super) fn dni(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    let Some(((letter, _), body)) = symbols.split_last() else {
        return false;
    };
    let number = body.iter().try_fold(0_u32, |number, (byte, _)| {
        let digit = match byte {
            b'X' | b'K' | b'L' | b'M' => 0,
            b'Y' => 1,
            b'Z' => 2,
            _ => char::from(*byte).to_digit(10)?,
        };
        Some(number * 10 + digit)
    });
    body.len() == 8
        && number
            .is_some_and(|number| b"TRWAGMYFPDXBNJZSQVHLCKE"[(number % 23) as usize] == *letter)
}

/// Spanish company number: the check is a digit or a letter by the kind of company.
pub(super) fn cif(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    let digits: Vec<u32> = symbols
        .iter()
        .skip(1)
        .take(7)
        .filter_map(|(byte, _)| char::from(*byte).to_digit(10))
        .collect();
    if symbols.len() != 9 || digits.len() != 7 {
        return false;
    }
    let check = ((10 - cross_sum(&digits, &[2, 1]) % 10) % 10) as usize;
    let last = symbols[8].0;
    let digit = last == b'0' + u8::try_from(check).unwrap_or_default();
    let letter = last == b"JABCDEFGHI"[check];
    match symbols[0].0 {
        b'A' | b'B' | b'E' | b'H' => digit,
        b'N' | b'P' | b'Q' | b'R' | b'S' | b'W' => letter,
        _ => digit || letter,
    }
}

/// Finnish personal number: the last symbol is date and serial modulo 31.
pub(super) fn hetu(candidate: &str) -> bool {
    let digits = digits(candidate);
    let last = candidate
        .bytes()
        .last()
        .map(|byte| byte.to_ascii_uppercase());
    let body = digits
        .get(..9)
        .map(|body| body.iter().fold(0, |number, digit| number * 10 + digit));
    body.is_some_and(|number| {
        Some(b"0123456789ABCDEFHJKLMNPRSTUVWXY"[(number % 31) as usize]) == last
    })
}

/// Turkish identity number: two check digits.
pub(super) fn tckn(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 11 || digits[0] == 0 {
        return false;
    }
    let odd: u32 = digits[..9].iter().step_by(2).sum();
    let even: u32 = digits[1..8].iter().step_by(2).sum();
    let all: u32 = digits[..10].iter().sum();
    (odd * 7 + 100 - even) % 10 == digits[9] && all % 10 == digits[10]
}

/// French number of a person: 97 less the number modulo 97; Corsica's departments 2A and 2B count as 19 and 18.
pub(super) fn nir(candidate: &str) -> bool {
    let symbols: Vec<u8> = symbols(candidate).iter().map(|(byte, _)| *byte).collect();
    if symbols.len() != 15 {
        return false;
    }
    let text: String = symbols.iter().map(|byte| char::from(*byte)).collect();
    let text = text.replacen("2A", "19", 1).replacen("2B", "18", 1);
    match (text[..13].parse::<u64>(), text[13..].parse::<u64>()) {
        (Ok(number), Ok(key)) => 97 - number % 97 == key,
        _ => false,
    }
}

/// Belgian number of a person: 97 less the number modulo 97, with a 2 before it since 2000.
pub(super) fn belgian(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 11 {
        return false;
    }
    let number = |part: &[u32]| {
        part.iter()
            .fold(0_u64, |number, digit| number * 10 + u64::from(*digit))
    };
    let (body, check) = (number(&digits[..9]), number(&digits[9..]));
    97 - body % 97 == check || 97 - (2_000_000_000 + body) % 97 == check
}

/// Number whose last two digits are the others modulo 97, or 97 less that: several registers of companies.
pub(super) fn mod_97(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() < 9 || digits.iter().all(|digit| *digit == digits[0]) {
        return false;
    }
    let (body, check) = digits.split_at(digits.len() - 2);
    let rest = body.iter().fold(0, |rest, digit| (rest * 10 + digit) % 97);
    let check = check[0] * 10 + check[1];
    97 - rest == check || rest == check
}

/// Italian tax code: values of letters and digits by odd and even place, modulo 26.
pub(super) fn codice_fiscale(candidate: &str) -> bool {
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let symbols = symbols(candidate);
    let Some(((last, _), body)) = symbols.split_last() else {
        return false;
    };
    let value = |(index, (byte, _)): (usize, &(u8, usize))| {
        let place = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte - b'A',
        };
        if index % 2 == 0 {
            ODD[usize::from(place)]
        } else {
            u32::from(place)
        }
    };
    let sum: u32 = body.iter().enumerate().map(value).sum();
    symbols.len() == 16 && last.is_ascii_uppercase() && sum % 26 == u32::from(last - b'A')
}

/// Numbers of Estonia and Lithuania: weights 1 to 9, and 3 to 9 in a second round.
pub(super) fn baltic(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 11 {
        return false;
    }
    let sum = |shift: u32| {
        let weighted = digits[..10].iter().zip(0_u32..);
        weighted
            .map(|(digit, place)| digit * ((place + shift) % 9 + 1))
            .sum::<u32>()
            % 11
    };
    let check = match sum(0) {
        10 => sum(2) % 10,
        check => check,
    };
    check == digits[10]
}

/// Irish number of a person: weights 8 to 2, a second letter counting nine times.
pub(super) fn pps(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    let digits = digits(candidate);
    if digits.len() != 7 || !matches!(symbols.len(), 8 | 9) || !symbols[7].0.is_ascii_uppercase() {
        return false;
    }
    let second = symbols.get(8).map_or(0, |(byte, _)| match byte {
        b'A'..=b'V' => u32::from(byte - b'A') + 1,
        _ => 0,
    });
    let sum: u32 = digits
        .iter()
        .zip((2..=8).rev())
        .map(|(digit, weight)| digit * weight)
        .sum();
    b"WABCDEFGHIJKLMNOPQRSTUV"[((sum + 9 * second) % 23) as usize] == symbols[7].0
}

/// Singapore's number of a person: weights 2765432 and a letter by series.
pub(super) fn nric(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    let digits = digits(candidate);
    if symbols.len() != 9 || digits.len() != 7 {
        return false;
    }
    let weights = [2, 7, 6, 5, 4, 3, 2];
    let sum: u32 = digits
        .iter()
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum();
    let (offset, letters) = match symbols[0].0 {
        b'S' => (0, b"JZIHGFEDCBA"),
        b'T' => (4, b"JZIHGFEDCBA"),
        b'F' => (0, b"XWUTRQPNMLK"),
        b'G' => (4, b"XWUTRQPNMLK"),
        b'M' => (3, b"XWUTRQPNJLK"),
        _ => return false,
    };
    let place = ((sum + offset) % 11) as usize;
    let place = if symbols[0].0 == b'M' {
        10 - place
    } else {
        place
    };
    let letters = if symbols[0].0 == b'M' {
        b"KLJNPQRTUWX"
    } else {
        letters
    };
    letters[place] == symbols[8].0
}

/// Thailand's number of a person: the first digit is a kind from 1 to 8, the second and third a region; modulo 11.
pub(super) fn thai(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 13 || !(1..=8).contains(&digits[0]) {
        return false;
    }
    let region = digits[1] * 10 + digits[2];
    let sum: u32 = digits[..12]
        .iter()
        .zip((2..=13).rev())
        .map(|(digit, weight)| digit * weight)
        .sum();
    let known = matches!(region, 10..=27 | 30..=58 | 60..=67 | 70..=77 | 80..=86 | 90..=96)
        || digits[..3] == [1, 2, 3];
    known && (11 - sum % 11) % 10 == digits[12]
}

/// Australia's business number: weights over the number with one taken from its first digit, modulo 89.
pub(super) fn abn(candidate: &str) -> bool {
    let digits = digits(candidate);
    if digits.len() != 11 || digits[0] == 0 {
        return false;
    }
    let weights = [10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19];
    let sum: u32 = digits
        .iter()
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum();
    (sum - 10).is_multiple_of(89)
}

/// Number of a vehicle (ISO 3779): the ninth symbol checks the others by weights, as North America and China demand.
pub(super) fn vin(candidate: &str) -> bool {
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    const VALUES: [u32; 26] = [
        1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 0, 7, 0, 9, 2, 3, 4, 5, 6, 7, 8, 9,
    ];
    let symbols = symbols(candidate);
    let value = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        _ => VALUES[usize::from(byte - b'A')],
    };
    let sum: u32 = symbols
        .iter()
        .zip(WEIGHTS)
        .map(|((byte, _), weight)| value(*byte) * weight)
        .sum();
    symbols.len() == 17 && symbols[8].0 == b"0123456789X"[(sum % 11) as usize]
}

/// Spanish supply point of electricity or gas: two letters are the sixteen digits modulo 529, in base 23.
pub(super) fn cups(candidate: &str) -> bool {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let symbols: Vec<u8> = symbols(candidate).iter().map(|(byte, _)| *byte).collect();
    let digits = symbols.get(2..18).unwrap_or_default();
    let rest = digits.iter().try_fold(0, |rest, byte| {
        Some((rest * 10 + char::from(*byte).to_digit(10)?) % 529)
    });
    rest.is_some_and(|rest| {
        let letters = [rest / 23, rest % 23].map(|value| LETTERS[value as usize]);
        let supplied = symbols.get(20).is_none_or(u8::is_ascii_digit);
        digits.len() == 16
            && symbols.get(18..20) == Some(&letters[..])
            && supplied
            && symbols.get(21).is_none_or(|kind| b"FPRCXYZ".contains(kind))
    })
}

/// Moroccan company number: fifteen digits that are a multiple of 97.
pub(super) fn ice(candidate: &str) -> bool {
    let digits = digits(candidate);
    let rest = digits
        .iter()
        .fold(0, |rest, digit| (rest * 10 + digit) % 97);
    digits.len() == 15 && rest == 0 && digits.iter().any(|digit| *digit != 0)
}

/// French VAT number: the company's number ends with a Luhn digit (those of Monaco begin with 000 and have none), and
/// before it stand, if they are digits, 12 and three times its remainder modulo 97.
pub(super) fn french_vat(candidate: &str) -> bool {
    let symbols: Vec<u8> = symbols(candidate).iter().map(|(byte, _)| *byte).collect();
    let symbols = symbols.strip_prefix(b"FR").unwrap_or(&symbols);
    let (Some(key), Some(company)) = (symbols.get(..2), symbols.get(2..11)) else {
        return false;
    };
    let number = |part: &[u8]| {
        part.iter().try_fold(0, |number, byte| {
            Some(number * 10 + char::from(*byte).to_digit(10)?)
        })
    };
    let values: Vec<u8> = company.iter().map(|byte| byte.wrapping_sub(b'0')).collect();
    let issued = company.starts_with(b"000") || luhn(&values);
    let Some(company) = number(company).filter(|_| issued && symbols.len() == 11) else {
        return false;
    };
    number(key).is_none_or(|key| key == (12 + 3 * (company % 97)) % 97)
}

/// Russian register of companies: the last digit is the others modulo 11 (of 13 digits) or 13 (of 15), modulo 10.
pub(super) fn ogrn(candidate: &str) -> bool {
    let digits = digits(candidate);
    let modulus = match digits.len() {
        13 => 11,
        15 => 13,
        _ => return false,
    };
    let (check, body) = (digits[digits.len() - 1], &digits[..digits.len() - 1]);
    body.iter()
        .fold(0, |rest, digit| (rest * 10 + digit) % modulus)
        % 10
        == check
}

/// Venezuelan taxpayer number: the letter counts as a multiple of four.
pub(super) fn rif(candidate: &str) -> bool {
    let first = candidate
        .bytes()
        .next()
        .map(|byte| byte.to_ascii_uppercase());
    let kind = match first {
        Some(b'V') => 4,
        Some(b'E') => 8,
        Some(b'J') => 12,
        Some(b'P') => 16,
        Some(b'G') => 20,
        _ => return false,
    };
    let digits = digits(candidate);
    if digits.len() != 9 {
        return false;
    }
    let weighted = digits.iter().zip([3, 2, 7, 6, 5, 4, 3, 2]);
    let sum: u32 = kind + weighted.map(|(digit, weight)| digit * weight).sum::<u32>();
    [0, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1][(sum % 11) as usize] == digits[8]
}

/// Polish identity card: three letters and weights 7, 3, 1 with the letters from 10.
pub(super) fn icao(candidate: &str) -> bool {
    let symbols = symbols(candidate);
    let value = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        _ => u32::from(byte - b'A') + 10,
    };
    let Some(((last, _), body)) = symbols.split_last() else {
        return false;
    };
    let sum: u32 = body
        .iter()
        .zip([7, 3, 1].iter().cycle())
        .map(|((byte, _), weight)| value(*byte) * weight)
        .sum();
    sum % 10 == value(*last)
}
