//! Writes `src/carrier.rs` anew from the schemas: `cargo run -p octollm-events --example carrier`.

mod generator;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let events = package
        .parent()
        .expect("the crate lies in the contract's folder");
    std::fs::write(package.join("src/carrier.rs"), generator::generate(events))
}
