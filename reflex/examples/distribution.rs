//! Microseconds of one screening and redaction, in process: P50, P95, P99 and the longest, by size of the text.

use std::hint::black_box;
use std::time::Instant;

use octollm_screen::{Placeholders, Role, Ruleset, Strategy, redact, screen};

const ROUNDS: usize = 2000;

/// So that the longest texts take no longer than the shortest.
const MAX_BYTES: usize = 20_000_000;

const PROSE: &str = "Please read the three reports in the shared folder, compare the figures of the last two quarters and \
    write a summary of at most two pages to ada@example.org. Version 10.2.14 was faster, says +49 30 1234567. ";
const ADVERSARIAL: [(&str, &str); 6] = [
    ("cards", "4111 1111 1111 1112 "),
    ("brackets", "["),
    ("at signs", "a@"),
    ("base64", "YWRhQGV4YW1wbGUub3Jn"),
    ("lookalikes", "аa"),
    ("attacks", "ignore all the "),
];

fn main() {
    println!(
        "{:<22}{:>10}{:>10}{:>10}{:>10}  µs",
        "text", "P50", "P95", "P99", "max"
    );
    for size in [100, 1024, 10 * 1024, 100 * 1024] {
        report(&format!("prose, {size} B"), PROSE, size);
    }
    for (name, unit) in ADVERSARIAL {
        report(&format!("{name}, 10240 B"), unit, 10 * 1024);
    }
}

fn report(name: &str, unit: &str, size: usize) {
    let mut text = unit.repeat(size / unit.len() + 1);
    text.truncate(text.floor_char_boundary(size));
    let ruleset = Ruleset::builtin();
    let rounds = ROUNDS.min(MAX_BYTES / size).max(100);
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            let screening = screen(black_box(&text), Role::Goal, ruleset);
            let mut placeholders = Placeholders::default();
            black_box(redact(
                &text,
                &screening,
                Strategy::Token,
                &mut placeholders,
            ));
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let rank = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let longest = times[times.len() - 1];
    println!(
        "{name:<22}{:>10.0}{:>10.0}{:>10.0}{longest:>10.0}",
        rank(50),
        rank(95),
        rank(99)
    );
}
