//! The carrier types follow the schemas.

#[path = "../examples/carrier/generator.rs"]
mod generator;

use std::path::Path;

#[test]
fn carrier_is_what_the_schemas_give() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(package.join("src/carrier.rs")).unwrap();
    let generated = generator::generate(package.parent().unwrap());
    assert!(
        committed == generated,
        "src/carrier.rs is out of date: cargo run -p octollm-events --example carrier"
    );
}
