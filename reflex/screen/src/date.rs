//! Dates: within numbers that begin with one, and written out.

/// Days of the months, with a leap day.
const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Whether the letters and digits of `value` hold a date where `layout` has its `D`, `M` and `Y`.
///
/// Registers mark the century, the sex or a temporary number on the month (20, 40, 50, 60, 80 more) or on the day (40 or
/// 60 more); such a date is one too.
pub(crate) fn holds(layout: &str, value: &str) -> bool {
    let symbols: Vec<u8> = value.bytes().filter(u8::is_ascii_alphanumeric).collect();
    let part = |letter: u8| {
        let mut places = layout.bytes().enumerate().filter(|(_, own)| *own == letter);
        places.try_fold(0, |number, (at, _)| {
            let digit = char::from(*symbols.get(at)?).to_digit(10)?;
            Some(number * 10 + digit)
        })
    };
    let (Some(day), Some(month)) = (part(b'D'), part(b'M')) else {
        return false;
    };
    let month = if month > 50 && month <= 62 {
        month - 50
    } else {
        month % 20
    };
    let day = match day {
        41..=71 => day - 40,
        _ => day,
    };
    let day = if day > 60 { day - 60 } else { day };
    is_date(day, month)
}

fn is_date(day: u32, month: u32) -> bool {
    (1..=12).contains(&month) && (1..=DAYS[month as usize - 1]).contains(&day)
}

/// Whether `value` is the date of a living person's birth: three parts, in any order that has year first or last, of the
/// years 1900 to 2029, or two digits of one; names of months count as their numbers.
pub(crate) fn is_birth_date(value: &str) -> bool {
    let mut parts: Vec<(u32, usize)> = Vec::new();
    let mut named = None;
    let words = value.split(|character: char| !character.is_alphanumeric());
    for word in words.filter(|word| !word.is_empty()) {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            let Ok(number) = word[..digits].parse() else {
                return false;
            };
            parts.push((number, digits));
        } else if let Some(month) = month(word) {
            named = Some(month);
        }
    }
    let year = |(number, digits): (u32, usize)| match digits {
        4 => (1900..=2029).contains(&number),
        2 => true,
        _ => false,
    };
    match (parts.as_slice(), named) {
        ([first, second], Some(month)) => {
            (is_date(first.0, month) && year(*second)) || (is_date(second.0, month) && year(*first))
        }
        ([first, second, third], None) => {
            let pair = |left: u32, right: u32| is_date(left, right) || is_date(right, left);
            if first.1 == 4 {
                year(*first) && pair(second.0, third.0)
            } else {
                year(*third) && pair(first.0, second.0)
            }
        }
        // One number, `19850101`.
        ([(_, 8)], None) => ["YYYYMMDD", "DDMMYYYY", "MMDDYYYY"]
            .iter()
            .any(|layout| holds(layout, value)),
        _ => false,
    }
}

/// The number of a month by the first letters of its name, in the languages that write dates in letters most.
fn month(word: &str) -> Option<u32> {
    const NAMES: &[(&str, u32)] = &[
        ("jan", 1),
        ("gen", 1),
        ("ene", 1),
        ("fev", 2),
        ("fév", 2),
        ("feb", 2),
        ("mar", 3),
        ("mär", 3),
        ("mrz", 3),
        ("maa", 3),
        ("apr", 4),
        ("avr", 4),
        ("abr", 4),
        ("may", 5),
        ("mai", 5),
        ("mag", 5),
        ("mei", 5),
        ("maj", 5),
        ("mayo", 5),
        ("juin", 6),
        ("juil", 7),
        ("jun", 6),
        ("giu", 6),
        ("jul", 7),
        ("lug", 7),
        ("aug", 8),
        ("aoû", 8),
        ("ago", 8),
        ("sep", 9),
        ("set", 9),
        ("oct", 10),
        ("okt", 10),
        ("ott", 10),
        ("out", 10),
        ("nov", 11),
        ("dec", 12),
        ("déc", 12),
        ("dez", 12),
        ("dic", 12),
    ];
    let word = word.to_lowercase();
    let matching = NAMES.iter().filter(|(name, _)| word.starts_with(name));
    matching
        .max_by_key(|(name, _)| name.len())
        .map(|(_, month)| *month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_numbers() {
        for (layout, value, valid) in [
            ("YYMMDD", "850229-1234", true),
            ("YYMMDD", "851329", false),
            ("YYMMDD", "856512", true),
            ("DDMMYY", "710199", true),
            ("DDMMYY", "320199", false),
            ("..YYMMDD", "AB850101", true),
            ("YYMMDD", "85", false),
        ] {
            assert_eq!(holds(layout, value), valid, "{layout} {value}");
        }
    }

    #[test]
    fn dates_of_birth() {
        for (value, valid) in [
            ("1985-01-31", true),
            ("31.01.1985", true),
            ("01/31/1985", true),
            ("31/31/1985", false),
            ("15th June 1991", true),
            ("June 15, 1991", true),
            ("4 août 1976", true),
            ("22-nov-72", true),
            ("31.01.1785", false),
            ("10.2.14", true),
            ("19850131", true),
            ("99999999", false),
        ] {
            assert_eq!(is_birth_date(value), valid, "{value}");
        }
    }
}
