//! Verifies exported messages: JSON lines on stdin, the report as JSON on stdout, so that other languages can test
//! against this crate. The exit code is 0 for intact, 1 for broken, 2 for what is no export.

use octollm_events::chain::{Message, verify};
use std::io::BufRead;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut messages: Vec<Message> = Vec::new();
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        match serde_json::from_str(&line?) {
            Ok(message) => messages.push(message),
            Err(error) => {
                eprintln!("line {} is no exported message: {error}", number + 1);
                return Ok(ExitCode::from(2));
            }
        }
    }
    let report = verify(messages);
    println!("{}", serde_json::to_string(&report)?);
    Ok(ExitCode::from(u8::from(!report.intact)))
}
