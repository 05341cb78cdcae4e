//! Trains the injection model and validates it across sources.
//!
//! ```text
//! train fit      LEXICON MODEL FLAG BLOCK < rows   trains on all rows and writes the model with these thresholds (thousandths of a logit)
//! train crossval LEXICON                  < rows   for each group whose rows say `judged`: trains on the other groups, and writes
//!                                                  `{id, group, label, logit, rules}` of its rows
//! ```
//!
//! Rows are JSON lines `{id, group, label: 0|1, text, weight, judged}`. Floating point throughout, but only additions,
//! multiplications, divisions and square roots, which IEEE 754 rounds alike everywhere, in a fixed order: the
//! same rows give the same file, byte for byte, on every machine.
//!
//! The loss is logistic over the worst window of a text, which is found anew for every step: of an attack only the
//! window that shows it is learned, and of an honest text the window that comes nearest to one.

use std::collections::BTreeSet;
use std::io::{BufRead, Write, stdin, stdout};

use octollm_screen::model::training::{MAGIC, Reading};
use octollm_screen::{Family, Role, Ruleset, Severity, screen};
use serde::Deserialize;
use serde_json::json;

const BITS: u32 = 17;
const EPOCHS: usize = 6;
const RATE: f64 = 0.12;
const DECAY: f64 = 2e-3;
const SEED: u64 = 20_261_122;

#[derive(Deserialize)]
struct Row {
    id: String,
    group: String,
    label: u8,
    text: String,
    weight: f64,
    judged: bool,
}

/// A row with what the model sees of it.
struct Document {
    row: Row,
    readings: Vec<Reading>,
}

struct Weights {
    weights: Vec<f64>,
    bias: f64,
}

impl Weights {
    fn logit(&self, reading: &Reading, window: &std::ops::Range<usize>) -> f64 {
        let hashes = reading.hashes(window).iter();
        let sum: f64 = hashes.map(|hash| self.weights[bucket(*hash)]).sum();
        sum / Reading::norm(window) + self.bias
    }

    /// The worst window of a text, with its reading.
    fn worst<'d>(
        &self,
        readings: &'d [Reading],
    ) -> Option<(f64, &'d Reading, std::ops::Range<usize>)> {
        let mut worst: Option<(f64, &Reading, std::ops::Range<usize>)> = None;
        for reading in readings {
            for window in reading.windows() {
                let logit = self.logit(reading, &window);
                if worst.as_ref().is_none_or(|(best, ..)| logit > *best) {
                    worst = Some((logit, reading, window));
                }
            }
        }
        worst
    }

    fn fit(documents: &[&Document]) -> Self {
        let mut model = Self {
            weights: vec![0.0; 1 << BITS],
            bias: -1.0,
        };
        let mut squares = vec![1e-2; 1 << BITS];
        let mut order: Vec<usize> = (0..documents.len()).collect();
        let mut random = SplitMix(SEED);
        let mut sum = vec![0.0; 1 << BITS];
        let mut bias_sum = 0.0;
        let mut averaged = 0.0;
        for epoch in 0..EPOCHS {
            for last in (1..order.len()).rev() {
                order.swap(last, random.below(last + 1));
            }
            for index in &order {
                let document = documents[*index];
                let attack = document.row.label == 1;
                let chosen = if attack && epoch == 0 {
                    // Before anything is known, all that stands there openly is the attack.
                    document.readings.last().and_then(|reading| {
                        let window = reading.windows().last()?;
                        Some((model.logit(reading, &window), reading, window))
                    })
                } else {
                    model.worst(&document.readings)
                };
                let Some((logit, reading, window)) = chosen else {
                    continue;
                };
                let error = logistic(logit) - f64::from(document.row.label);
                let gradient = error * document.row.weight;
                let step = gradient / Reading::norm(&window);
                for hash in reading.hashes(&window) {
                    let at = bucket(*hash);
                    let slope = step + DECAY * document.row.weight * model.weights[at];
                    squares[at] += slope * slope;
                    model.weights[at] -= RATE * slope / squares[at].sqrt();
                }
                model.bias -= 0.01 * gradient;
            }
            if epoch >= EPOCHS / 2 {
                averaged += 1.0;
                bias_sum += model.bias;
                for (sum, weight) in sum.iter_mut().zip(&model.weights) {
                    *sum += weight;
                }
            }
        }
        model.weights = sum.into_iter().map(|sum| sum / averaged).collect();
        model.bias = bias_sum / averaged;
        model
    }

    /// The file that the crate loads.
    fn file(&self, flag: i32, block: i32) -> Vec<u8> {
        let mut magnitudes: Vec<f64> = self.weights.iter().map(|weight| weight.abs()).collect();
        magnitudes.sort_unstable_by(f64::total_cmp);
        // The few weights beyond it are cut.
        let largest = magnitudes[magnitudes.len() - magnitudes.len() / 4096].max(1e-9);
        let unit = largest / 127.0;
        let mut file = MAGIC.to_vec();
        let bits = i32::try_from(BITS).expect("small");
        let bias = (self.bias * 1000.0).round() as i32;
        let scale = (unit * 1000.0 * 65536.0).round() as i32;
        for number in [bits, bias, scale, flag, block] {
            file.extend(number.to_le_bytes());
        }
        let bytes = self.weights.iter().map(|weight| {
            let rounded = (weight / unit).round().clamp(-127.0, 127.0);
            (rounded as i8).cast_unsigned()
        });
        file.extend(bytes);
        file
    }
}

const fn bucket(hash: u32) -> usize {
    (hash & ((1 << BITS) - 1)) as usize
}

/// The logistic function, from multiplications alone: the library's exponential is not the same everywhere.
fn logistic(logit: f64) -> f64 {
    let mut power = 1.0 - logit.clamp(-30.0, 30.0) / 4096.0;
    for _ in 0..12 {
        power *= power;
    }
    1.0 / (1.0 + power)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// What the rules alone say of a goal, by the gravest of their findings: 0 nothing, 1 a flag, 2 a block.
fn rules(text: &str, ruleset: &Ruleset) -> u8 {
    let screening = screen(text, Role::Goal, ruleset);
    let found = screening.findings.iter();
    let gravest = found
        .filter(|found| found.family != Family::Learned)
        .map(|found| found.severity)
        .max();
    match gravest {
        None | Some(Severity::Low) => 0,
        Some(Severity::Medium) => 1,
        Some(Severity::High | Severity::Critical) => 2,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mode, lexicon) = match arguments[..] {
        [mode @ "fit", lexicon, _, _, _] | [mode @ "crossval", lexicon] => (mode, lexicon),
        _ => {
            return Err(
                "usage: train fit LEXICON MODEL FLAG BLOCK | train crossval LEXICON".into(),
            );
        }
    };
    let lexicon = std::fs::read_to_string(lexicon)?;
    let ruleset = Ruleset::builtin();
    let mut documents = Vec::new();
    for line in stdin().lock().lines() {
        let row: Row = serde_json::from_str(&line?)?;
        let readings = Reading::all(&row.text, ruleset, &lexicon);
        documents.push(Document { row, readings });
    }
    if mode == "fit" {
        let model = Weights::fit(&documents.iter().collect::<Vec<_>>());
        std::fs::write(
            arguments[2],
            model.file(arguments[3].parse()?, arguments[4].parse()?),
        )?;
        return Ok(());
    }
    let judged = documents.iter().filter(|document| document.row.judged);
    let groups: BTreeSet<&str> = judged.map(|document| document.row.group.as_str()).collect();
    let groups: Vec<&str> = groups.into_iter().collect();
    let halves: Vec<Vec<String>> = std::thread::scope(|scope| {
        let parts = [0, 1].map(|half| {
            let (groups, documents) = (&groups, &documents);
            scope.spawn(move || {
                let own = groups.iter().skip(half).step_by(2);
                own.flat_map(|group| fold(documents, group, ruleset))
                    .collect()
            })
        });
        parts.map(|part| part.join().expect("no panic")).into()
    });
    let mut out = stdout().lock();
    for line in halves.concat() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn fold(documents: &[Document], group: &str, ruleset: &Ruleset) -> Vec<String> {
    let (own, others): (Vec<&Document>, Vec<&Document>) = documents
        .iter()
        .partition(|document| document.row.group == group);
    let model = Weights::fit(&others);
    let lines = own
        .iter()
        .filter(|document| document.row.judged)
        .map(|document| {
            let logit = model
                .worst(&document.readings)
                .map_or(-9.0, |(logit, ..)| logit);
            json!({
                "id": document.row.id,
                "group": group,
                "label": document.row.label,
                "logit": (logit * 1000.0).round(),
                "rules": rules(&document.row.text, ruleset),
            })
            .to_string()
        });
    lines.collect()
}
