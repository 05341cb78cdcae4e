//! The vectors that both languages share, and what only this side can show.

use biscuit_auth::macros::{biscuit, block};
use biscuit_auth::{KeyPair, PrivateKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    private_key: String,
    public_key: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    token: String,
    at: String,
    expected: Use,
    granted: bool,
}

fn vectors() -> Vectors {
    let text = include_str!("../../../../events/corpus/capability/tokens.json");
    serde_json::from_str(text).unwrap()
}

fn time(text: &str) -> SystemTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
}

impl Vectors {
    fn verifier(&self) -> Verifier {
        Verifier::parse(&self.public_key).unwrap()
    }

    fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).unwrap()
    }

    fn key_pair(&self) -> KeyPair {
        let key: PrivateKey = self.private_key.parse().unwrap();
        KeyPair::from(&key)
    }
}

fn refusal(verifier: &Verifier, case: &Case) -> String {
    let outcome = verifier.verify(&case.token, &case.expected, time(&case.at));
    outcome.map_or_else(|violation| violation.to_string(), |grant| grant.id)
}

#[test]
fn every_vector_is_judged_as_it_says() {
    let vectors = vectors();
    let verifier = vectors.verifier();
    assert!(vectors.cases.iter().filter(|case| case.granted).count() >= 3);
    assert!(vectors.cases.len() > 20);
    for case in &vectors.cases {
        let outcome = verifier.verify(&case.token, &case.expected, time(&case.at));
        assert_eq!(outcome.is_ok(), case.granted, "{}: {outcome:?}", case.name);
    }
}

#[test]
fn a_violation_names_just_what_does_not_fit() {
    let vectors = vectors();
    let verifier = vectors.verifier();
    let mut looked_at = 0;
    for case in &vectors.cases {
        let named = ["other-", "silent-on-"]
            .iter()
            .find_map(|prefix| case.name.strip_prefix(prefix));
        if let Some(named) = named {
            let named = match named {
                "limits" => "limit memory_bytes, limit output_bytes, limit wall_ms".to_owned(),
                named => named.replace("limit-", "limit "),
            };
            let text = format!("the capability does not grant this: {named} does not fit");
            assert_eq!(refusal(&verifier, case), text, "{}", case.name);
            looked_at += 1;
        }
    }
    assert!(looked_at >= 18);
    for (name, property) in [
        ("expired", "expiry"),
        ("foreign-key", "signature"),
        ("tampered-facts", "signature"),
        ("tampered-signature", "signature"),
        ("cut-short", "form"),
        ("no-token", "form"),
        ("dispatch-at-endpoint", "audience"),
        ("endpoint-as-dispatch", "audience"),
        ("appended-facts", "attenuation"),
        ("appended-check", "attenuation"),
    ] {
        let text = format!("the capability does not grant this: {property} does not fit");
        assert_eq!(refusal(&verifier, vectors.case(name)), text, "{name}");
    }
}

#[test]
fn actions_have_the_same_digest_in_both_languages() {
    #[derive(Deserialize)]
    struct Vector {
        name: String,
        action: Value,
        digest: String,
    }
    let text = include_str!("../../../../events/corpus/capability/digests.json");
    let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
    assert!(vectors.len() > 3);
    for vector in vectors {
        assert_eq!(
            action_digest(&vector.action),
            vector.digest,
            "{}",
            vector.name
        );
    }
}

#[test]
fn whoever_appends_gets_nothing() {
    let vectors = vectors();
    let (verifier, valid) = (vectors.verifier(), vectors.case("valid"));
    let token = Biscuit::from_base64(&valid.token, verifier.key).unwrap();
    let longer = Use {
        limits: [("wall_ms".to_owned(), 60_000)].into(),
        ..valid.expected.clone()
    };
    let stranger = KeyPair::new();
    let rights = || block!(r#"step("wipe"); limit("wall_ms", 60000); time(2020-01-01T00:00:00Z);"#);
    let request = token.third_party_request().unwrap();
    let third_party = request.create_block(&stranger.private(), rights());
    let third_party = token.append_third_party(stranger.public(), third_party.unwrap());
    for appended in [
        token.append(rights()),
        token.append(block!(
            r#"limit($name, 60000) <- limit($name, $granted);"#
        )),
        token.append(block!("")),
        // Some 10⁸ facts in one round: this test would not end.
        token.append(block!(
            "n(0); n(1); n(2); n(3); n(4); n(5); n(6); n(7); n(8); n(9);
             flood($a, $b, $c, $d, $e, $f, $g, $h) <- n($a), n($b), n($c), n($d), n($e), n($f), n($g), n($h);"
        )),
        third_party,
    ] {
        let appended = appended.unwrap().to_base64().unwrap();
        for asked in [&longer, &valid.expected] {
            let outcome = verifier.verify(&appended, asked, time(&valid.at));
            assert_eq!(
                outcome.unwrap_err().properties(),
                [Property::Attenuation]
            );
        }
    }
}

#[test]
fn a_token_that_outlives_its_memory_is_refused() {
    let vectors = vectors();
    let (verifier, execute) = (vectors.verifier(), vectors.case("valid-execute"));
    let now = time(&execute.at);
    let day = Duration::from_secs(24 * 3600);
    let ask = |token: &str, memory| verifier.verify_within(token, &execute.expected, now, memory);
    assert!(ask(&execute.token, day).is_ok());
    let short = ask(&execute.token, Duration::from_secs(1)).unwrap_err();
    assert_eq!(short.properties(), [Property::Lifetime]);
    // Signed, but good for ever.
    let Use {
        audience,
        task,
        plan,
        step,
        attempt,
        purpose,
        action,
        effect,
        limits,
    } = execute.expected.clone();
    let (plan, attempt, task) = (plan.cast_signed(), attempt.cast_signed(), task.to_string());
    let mut builder = biscuit!(
        "audience({audience}); task({task}); plan({plan}); step({step}); attempt({attempt}); purpose({purpose});
         action({action}); effect({effect});"
    );
    for (name, limit) in limits {
        let limit = limit.cast_signed();
        builder = builder.merge(block!("limit({name}, {limit});"));
    }
    let eternal = builder
        .build(&vectors.key_pair())
        .unwrap()
        .to_base64()
        .unwrap();
    assert!(verifier.verify(&eternal, &execute.expected, now).is_ok());
    let refused = ask(&eternal, day).unwrap_err();
    assert_eq!(refused.properties(), [Property::Lifetime]);
}

#[test]
fn only_an_ed25519_key_is_taken() {
    let vectors = vectors();
    assert!(Verifier::parse(&vectors.public_key).is_some());
    for text in [
        "",
        "ed25519/",
        "ed25519/00",
        &vectors.private_key,
        &vectors.public_key[8..],
    ] {
        assert!(Verifier::parse(text).is_none(), "{text}");
    }
    let oversize = "A".repeat(MAX_TOKEN_BYTES + 4);
    let valid = vectors.case("valid");
    let outcome = vectors
        .verifier()
        .verify(&oversize, &valid.expected, time(&valid.at));
    assert_eq!(outcome.unwrap_err().properties(), [Property::Form]);
}
