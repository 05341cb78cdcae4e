//! The recorded stdout of earlier steps, for criteria that read it.

use octollm_events::Event;
use octollm_events::carrier::StepExecuted;

use crate::criterion::Evidence;
use crate::step::Recorded;

/// What the task's log holds of the named steps: head and tail as recorded, that is, screened. Of several results of
/// a step the last counts.
#[must_use]
pub fn recall(events: &[Event], steps: &[String]) -> Recorded {
    let results = events.iter().filter(|event| event.kind == "step.executed");
    let executed = results.filter_map(|event| event.decode::<StepExecuted>().ok());
    let wanted = executed.filter(|executed| steps.contains(&executed.step_id));
    wanted
        .map(|executed| {
            let stdout = executed.output.stdout;
            let evidence = if stdout.truncated {
                Evidence::Excerpt {
                    head: stdout.head.into_bytes(),
                    tail: stdout.tail.into_bytes(),
                }
            } else {
                Evidence::Whole((stdout.head + &stdout.tail).into_bytes())
            };
            (executed.step_id, evidence)
        })
        .collect()
}
