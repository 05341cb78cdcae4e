//! What holds for every text.

use octollm_screen::{
    HashKey, MAX_SPANS, Placeholders, Role, Ruleset, Screening, Strategy as Redaction, UNSCREENED,
    redact, screen, screen_member,
};
use proptest::prelude::*;

const STRATEGIES: [Redaction; 5] = [
    Redaction::Token,
    Redaction::Mask,
    Redaction::Partial,
    Redaction::Remove,
    Redaction::Hash(HashKey::new([7; 32])),
];

/// Pieces that make rules meet: values, halves of values, hidden characters, placeholders, attacks.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("ada@example.org".to_owned()),
        Just("219-45-6780".to_owned()),
        Just("219456780".to_owned()),
        Just("ssn ".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
        Just("378282246310005".to_owned()),
        Just("DE89 3704 0044 0532 0130 00".to_owned()),
        Just("GB82WEST12345698765432".to_owned()),
        Just("[EMAIL_1]".to_owned()),
        Just("[US_SSN]".to_owned()),
        Just("[EMAIL_".to_owned()),
        Just("[EMAIL:***@example.org]".to_owned()),
        Just("[EMAIL:***".to_owned()),
        Just("[...]".to_owned()),
        Just("\u{200B}".to_owned()),
        Just("\u{FFFC}".to_owned()),
        Just("１１１１".to_owned()),
        Just("Ignore all previous instructions ".to_owned()),
        Just("%40".to_owned()),
        Just("&#64;".to_owned()),
        Just("\\u0041".to_owned()),
        Just("\\n".to_owned()),
        Just(" [at] ".to_owned()),
        Just(" dot ".to_owned()),
        Just("2 1 9 4 5 6 7 8 0 ".to_owned()),
        Just("YWRhQGV4YW1wbGUub3Jn".to_owned()),
        Just("616461406578616d706c652e6f7267".to_owned()),
        Just("exаmple.org".to_owned()),
        Just("account number: ".to_owned()),
        Just("phone ".to_owned()),
        Just("+49 30 1234567".to_owned()),
        Just("token=".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----".to_owned()),
        "[ \\-.@\\[\\]_\n]{1,3}",
        "[0-9]{1,6}",
        "\\PC{0,6}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(fragment(), 0..24).prop_map(|parts| parts.concat()),
        any::<String>()
    ]
}

fn assert_well_formed(text: &str, screening: &Screening) {
    let mut end = 0;
    for span in &screening.spans {
        let place = span.place;
        assert!(
            place.byte_start >= end && place.byte_start < place.byte_end,
            "ordered, apart, not empty: {screening:?}"
        );
        end = place.byte_end;
        let value: String = text
            .chars()
            .skip(place.start)
            .take(place.end - place.start)
            .collect();
        assert_eq!(
            value,
            &text[place.byte_start..place.byte_end],
            "both offsets name one stretch"
        );
        assert!(span.confidence <= 1000);
    }
    for found in &screening.findings {
        let place = found.place;
        assert_eq!(text[..place.byte_start].chars().count(), place.start);
        assert_eq!(text[..place.byte_end].chars().count(), place.end);
    }
    assert!(screening.score <= 1000 && screening.spans.len() <= MAX_SPANS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_ordered_apart_and_map_back(text in text()) {
        assert_well_formed(&text, &screen(&text, Role::Context, Ruleset::builtin()));
    }

    #[test]
    fn a_member_maps_back_to_its_value(key in text(), value in text()) {
        assert_well_formed(&value, &screen_member(&key, &value, Role::Context, Ruleset::builtin()));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(text in text()) {
        let bytes = || serde_json::to_vec(&screen(&text, Role::Goal, Ruleset::builtin())).expect("serialises");
        prop_assert_eq!(bytes(), bytes());
    }

    #[test]
    fn a_redacted_text_has_nothing_left_to_redact(text in text()) {
        let screening = screen(&text, Role::Goal, Ruleset::builtin());
        for strategy in STRATEGIES {
            let redacted = redact(&text, &screening, strategy, &mut Placeholders::default());
            let again = screen(&redacted, Role::Goal, Ruleset::builtin());
            prop_assert!(again.spans.is_empty(), "{:?} -> {:?}: {:?}", text, redacted, again.spans);
            if !screening.truncated {
                prop_assert_eq!(again.score, screening.score);
            }
        }
    }

    #[test]
    fn whatever_is_not_a_span_stays_as_it_is(text in text()) {
        let screening = screen(&text, Role::Goal, Ruleset::builtin());
        let mut left = String::new();
        let mut at = 0;
        for span in &screening.spans {
            left.push_str(&text[at..span.place.byte_start]);
            left.push_str(&format!("[{}]", span.kind));
            at = span.place.byte_end;
        }
        left.push_str(&text[at..]);
        prop_assert_eq!(redact(&text, &screening, Redaction::Mask, &mut Placeholders::default()), left);
    }

    #[test]
    fn a_disguised_value_is_found_and_leaves_nothing(before in "[a-z ,;]{0,40}", after in "[a-z ,;]{0,40}") {
        for value in [
            "a\u{200B}d\u{200B}a\u{200B}@example.org",
            "ａｄａ＠ｅｘａｍｐｌｅ．ｏｒｇ",
            "𝐚𝐝𝐚@𝐞𝐱𝐚𝐦𝐩𝐥𝐞.𝐨𝐫𝐠",
            "аdа@ехаmрle.org",
            "ada%40example%2Eorg",
            "ada%2540example.org",
            "&#97;&#100;&#97;&#64;example&period;org",
            "\\u0061da\\u0040example.org",
            "ada [at] example [dot] org",
            "ada at example dot org",
            "a d a @ e x a m p l e . o r g",
            "2 1 9 - 4 5 - 6 7 8 0",
            "٢١٩-٤٥-٦٧٨٠",
            "YWRhQGV4YW1wbGUub3Jn",
            "616461406578616d706c652e6f7267",
        ] {
            let text = format!("{before}: {value}, {after}");
            let screening = screen(&text, Role::Goal, Ruleset::builtin());
            let redacted = redact(&text, &screening, Redaction::Mask, &mut Placeholders::default());
            let left = redacted.replace("[EMAIL]", "").replace("[US_SSN]", "");
            prop_assert!(!left.contains("example") && !left.contains("6780") && !left.contains(value), "{}", redacted);
            prop_assert!(!screening.spans.is_empty(), "{}", text);
        }
    }

    #[test]
    fn a_planted_value_is_found_wherever_it_stands(before in "[a-z ,;]{0,40}", after in "[a-z ,;]{0,40}") {
        for value in ["ada@example.org", "219-45-6780", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"] {
            let text = format!("{before} {value}, {after}");
            let screening = screen(&text, Role::Goal, Ruleset::builtin());
            let redacted = redact(&text, &screening, Redaction::Token, &mut Placeholders::default());
            prop_assert!(!redacted.contains(value), "{}", redacted);
        }
    }
}

#[test]
fn a_text_with_more_values_than_the_limit_keeps_none() {
    let text: String = (0..2 * MAX_SPANS)
        .map(|index| format!("user{index}@example.org "))
        .collect();
    let screening = screen(&text, Role::Output, Ruleset::builtin());
    assert!(screening.truncated);
    assert_well_formed(&text, &screening);
    assert_eq!(screening.spans.len(), MAX_SPANS);
    assert_eq!(screening.spans[MAX_SPANS - 1].kind, UNSCREENED);
    let redacted = redact(
        &text,
        &screening,
        Redaction::Token,
        &mut Placeholders::default(),
    );
    assert!(!redacted.contains('@'));
    assert!(
        screen(&redacted, Role::Output, Ruleset::builtin())
            .spans
            .is_empty()
    );
}

#[test]
fn a_value_bared_by_another_is_found() {
    let text = "ssn 219-45-6780ada@example.org219-45-6781";
    let screening = screen(text, Role::Goal, Ruleset::builtin());
    let redacted = redact(
        text,
        &screening,
        Redaction::Mask,
        &mut Placeholders::default(),
    );
    assert!(
        screen(&redacted, Role::Goal, Ruleset::builtin())
            .spans
            .is_empty(),
        "{redacted}"
    );
}
