//! The list of errors and the problems made from it.

use octollm_events::carrier::ErrorCode;
use octollm_events::errors::problem;
use serde_json::{Value, json};

#[test]
fn every_code_of_the_schema_is_in_the_list_and_the_other_way_round() {
    let list: Vec<Value> = serde_json::from_str(include_str!("../../errors.json")).unwrap();
    let schema: Value = serde_json::from_str(include_str!("../../schemas/error/v1.json")).unwrap();
    let codes: Vec<_> = list.iter().map(|row| row["code"].clone()).collect();
    assert_eq!(json!(codes), schema["$defs"]["ErrorCode"]["enum"]);
    for row in &list {
        let code: ErrorCode = serde_json::from_value(row["code"].clone()).unwrap();
        let info = code.info();
        assert_eq!(info.code, code);
        assert!((400..600).contains(&info.http_status));
        assert!(info.exit_code > 0);
    }
}

#[test]
fn a_problem_has_the_contract_s_members() {
    let bare = problem(ErrorCode::NotFound, "no task x", None, &[]);
    assert_eq!(bare.status, 404);
    assert_eq!(
        bare.body,
        json!({
            "type": "urn:octollm:error:NOT_FOUND",
            "title": "No such task",
            "status": 404,
            "detail": "no task x",
            "code": "NOT_FOUND",
            "hint": "Check the id; octo ls lists the tasks.",
        })
    );
    let errors = [("/goal".to_owned(), "is required".to_owned())];
    let full = problem(ErrorCode::InvalidRequest, "broken", Some("t"), &errors);
    assert_eq!(full.body["task_id"], "t");
    assert_eq!(
        full.body["errors"],
        json!([{ "pointer": "/goal", "message": "is required" }])
    );
}
