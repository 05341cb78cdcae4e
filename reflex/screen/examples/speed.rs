//! Measures the screen in process: time to load the rules, microseconds for texts of 1 KiB, and nanoseconds per byte of
//! texts that were made to be slow, at two lengths, so that what is not linear shows.
//!
//! Texts of one's own: JSON lines `{"text": …}` from standard input are measured too, each cut or repeated to 1 KiB.

use std::hint::black_box;
use std::io::{BufRead, IsTerminal, stdin};
use std::time::{Duration, Instant};

use octollm_screen::{Role, Ruleset, screen};

const KIBIBYTE: usize = 1024;
const ROUNDS: usize = 200;

const PROSE: &str = "Please read the three reports in the shared folder, compare the figures of the last two quarters and \
    write a summary of at most two pages. Name every assumption, quote the table it rests on, and say where the data is \
    thin. The build of 2024-05-03 took 1,204.33 seconds; version 10.2.14 was faster. ";
const VALUES: &str = "Call me on +49 30 1234567 or write to ada@example.org; my SSN is 219-45-6780, the card is 4111 1111 \
    1111 1111 and the IBAN DE89370400440532013000. api_key = \"Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB\" at 86.231.85.193. ";
const LOG: &str = "2024-05-03T10:20:30.123Z INFO worker[4123] request_id=7f3a2c1d status=200 bytes=48213 path=/api/v1/items \
    elapsed=0.0132 retries=0 shard=17 digest=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n";
const CODE: &str = "fn main() -> Result<(), Error> { let total: u64 = values.iter().map(|value| value * 31).sum(); \
    assert_eq!(total, 1_048_576); println!(\"{total:>10}\"); Ok(()) } // see docs/decisions/0004.md\n";

const HOSTILE: &[(&str, &str)] = &[
    ("digits", "1"),
    ("digits apart", "1 "),
    ("dots", "1."),
    ("at signs", "a@"),
    ("brackets", "["),
    ("percent", "%25"),
    ("ampersands", "&amp;"),
    ("base64", "YWRhQGV4YW1wbGUub3Jn"),
    ("context", "account number "),
    ("cards", "4111 1111 1111 1112 "),
    ("keys", "-----BEGIN PRIVATE KEY-----"),
    ("tokens", "token=token="),
    ("colons", "::1"),
    ("lookalikes", "аa"),
    ("marks", "e\u{301}"),
    ("attacks", "ignore all the "),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let ruleset = Ruleset::builtin();
    println!(
        "load            {:>9.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    for (name, sentence) in [
        ("prose", PROSE),
        ("values", VALUES),
        ("log", LOG),
        ("code", CODE),
    ] {
        let text = filled(sentence, KIBIBYTE);
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| time(&text, ruleset)).collect();
        report(name, &mut times);
    }
    if !stdin().is_terminal() {
        let mut times = Vec::new();
        for line in stdin().lock().lines() {
            let document: serde_json::Value = serde_json::from_str(&line?)?;
            let text = filled(document["text"].as_str().unwrap_or_default(), KIBIBYTE);
            time(&text, ruleset);
            times.push(time(&text, ruleset));
        }
        report("standard input", &mut times);
    }
    for (name, part) in HOSTILE {
        let per_byte = |length: usize| {
            let text = filled(part, length);
            let time = (0..3)
                .map(|_| time(&text, ruleset))
                .min()
                .unwrap_or_default();
            time.as_secs_f64() * 1e9 / length as f64
        };
        println!(
            "{name:<16}{:>9.0} ns/B at 8 KiB {:>9.0} ns/B at 64 KiB",
            per_byte(8 * KIBIBYTE),
            per_byte(64 * KIBIBYTE)
        );
    }
    Ok(())
}

fn time(text: &str, ruleset: &Ruleset) -> Duration {
    let start = Instant::now();
    black_box(screen(black_box(text), Role::Goal, ruleset));
    start.elapsed()
}

fn filled(part: &str, length: usize) -> String {
    let mut text = part.repeat(length / part.len().max(1) + 1);
    text.truncate(text.floor_char_boundary(length));
    text
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    println!(
        "{name:<16}{:>9.1} µs median {:>9.1} µs P95 {:>9.1} µs P99",
        at(50),
        at(95),
        at(99)
    );
}
