//! What verification has to say.

use serde::Serialize;

/// What is wrong with the receipt of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The result of an executor's step has none.
    MissingReceipt,
    /// Its form is not that of a receipt.
    Malformed,
    /// No key at hand is the one that it names.
    UnknownKey,
    /// The key that it names has not signed this.
    BadSignature,
    /// It was made for another result.
    OtherResult,
    /// It was made for this result, which is not what it was.
    Altered,
    /// It answers another dispatch than the one on record, or one that is not on record.
    OtherDispatch,
    /// It names another action than the dispatch.
    OtherAction,
    /// It does not follow the task's receipt before it: one was removed, inserted or exchanged.
    BrokenChain,
}

/// What is wrong with one result's receipt; the first thing that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stream sequence of the result.
    pub seq: u64,
    /// What is wrong.
    pub code: Code,
    /// More about it.
    pub detail: String,
}

/// The receipts of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// The task.
    pub task_id: String,
    /// Results that must have a receipt, or have one.
    pub results: u64,
    /// Those whose receipts hold.
    pub verified: u64,
    /// What is wrong with the others, in stored order.
    pub findings: Vec<Finding>,
}
