//! Reading a task by direct get.

use super::{Log, ReadError, filter};
use crate::bus::Bus;
use crate::envelope::{Event, Position};
use crate::publish::{ATTEMPT, FIRST_PAUSE, LONGEST_PAUSE};
use async_nats::{Message, Request, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

const DIRECT_GET: &str = "$JS.API.DIRECT.GET.EVENTS";
const READ_BATCH: usize = 256;
const END_OF_BATCH: u16 = 204;

impl Log {
    /// A task's events in order, from its first or after a position; empty for an unknown task. Checks the chain on the way.
    pub async fn read(
        &self,
        task_id: Uuid,
        after: Option<&Position>,
    ) -> Result<Vec<Event>, ReadError> {
        let mut previous = after.copied().unwrap_or(Position::START);
        let mut next = match after {
            Some(position) if position.seq > 0 => Some(position.seq + 1),
            _ => self.first_seq(task_id).await?,
        };
        let mut events = Vec::new();
        while let Some(seq) = next {
            let (messages, more) = self.batch(task_id, seq).await?;
            for message in &messages {
                let event = Event::from_stored(message)?;
                check_link(&previous, &event)?;
                previous = event.position();
                events.push(event);
            }
            next = (more && !messages.is_empty()).then_some(previous.seq + 1);
        }
        Ok(events)
    }

    /// What came after the position at which an append conflicted.
    ///
    /// Any replica answers a read, and may lag behind the one that refused the append: it is asked again for two
    /// seconds. Empty, after that, where it was the id alone that was refused.
    pub async fn read_on(&self, task_id: Uuid, after: &Position) -> Result<Vec<Event>, ReadError> {
        let deadline = Instant::now() + ATTEMPT;
        let mut pause = FIRST_PAUSE;
        loop {
            let events = self.read(task_id, Some(after)).await?;
            if !events.is_empty() || Instant::now() > deadline {
                return Ok(events);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The sequence of the newest event in the log, 0 for an empty one.
    pub async fn last_seq(&self) -> Result<u64, ReadError> {
        let body = json!({ "last_by_subj": ">" }).to_string().into();
        let last = self.get(DIRECT_GET.to_owned(), body).await?;
        Ok(last.unwrap_or(0))
    }

    /// Where a task begins: the lower of task.received and task.rejected.
    async fn first_seq(&self, task_id: Uuid) -> Result<Option<u64>, ReadError> {
        // With the subject in the call there is one answer at most, and the broker need not remember the call for more.
        let last = |kind| format!("{DIRECT_GET}.{kind}.{task_id}");
        let (received, rejected) = tokio::try_join!(
            self.get(last("task.received"), Bytes::new()),
            self.get(last("task.rejected"), Bytes::new()),
        )?;
        Ok(received.into_iter().chain(rejected).min())
    }

    /// The sequence of one message by direct get; `None` where there is none.
    async fn get(&self, call: String, body: Bytes) -> Result<Option<u64>, ReadError> {
        let message = self
            .retried(|| get_once(&self.bus, call.clone(), body.clone()))
            .await?;
        match message.status {
            None => Ok(Some(Event::stored_seq(&message)?)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(ReadError::refused(status)),
        }
    }

    /// Up to a batch of a task's messages from `seq` on, and whether there are more.
    async fn batch(&self, task_id: Uuid, seq: u64) -> Result<(Vec<Message>, bool), ReadError> {
        let body = json!({ "seq": seq, "next_by_subj": filter(task_id), "batch": READ_BATCH });
        let body = Bytes::from(body.to_string());
        self.retried(|| batch_once(&self.bus, body.clone())).await
    }

    /// Repeats a read while the broker does not answer, within the deadline.
    async fn retried<T, R>(&self, read: impl Fn() -> R) -> Result<T, ReadError>
    where
        R: Future<Output = Result<T, ReadError>>,
    {
        let deadline = Instant::now() + self.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            match read().await {
                Err(ReadError::Unavailable { .. }) if Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}

async fn get_once(bus: &Bus, call: String, body: Bytes) -> Result<Message, ReadError> {
    let mut refusals = bus.refusals();
    let request = Request::new().payload(body).timeout(Some(ATTEMPT));
    tokio::select! {
        answer = bus.client().send_request(call.clone(), request) => answer.map_err(ReadError::failed),
        () = refusals.of(&call) => Err(ReadError::Forbidden { call: call.clone() }),
    }
}

async fn batch_once(bus: &Bus, body: Bytes) -> Result<(Vec<Message>, bool), ReadError> {
    let client = bus.client();
    let mut refusals = bus.refusals();
    let inbox = client.new_inbox();
    let mut replies = client
        .subscribe(inbox.clone())
        .await
        .map_err(ReadError::failed)?;
    client
        .publish_with_reply(DIRECT_GET, inbox, body)
        .await
        .map_err(ReadError::failed)?;
    let mut messages = Vec::new();
    loop {
        let reply = tokio::select! {
            reply = tokio::time::timeout(ATTEMPT, replies.next()) => reply.map_err(ReadError::failed)?,
            () = refusals.of(DIRECT_GET) => {
                return Err(ReadError::Forbidden { call: DIRECT_GET.to_owned() });
            }
        };
        let reply = reply.ok_or_else(|| ReadError::unavailable("the connection was closed"))?;
        match reply.status {
            None => messages.push(reply),
            Some(status) if status.as_u16() == END_OF_BATCH => {
                let headers = reply.headers.as_ref();
                let pending = headers.and_then(|it| it.get("Nats-Num-Pending"));
                let more = pending.is_some_and(|count| count.as_str() != "0");
                return Ok((messages, more));
            }
            Some(StatusCode::NOT_FOUND) => return Ok((messages, false)),
            Some(status) => return Err(ReadError::refused(status)),
        }
    }
}

fn check_link(previous: &Position, event: &Event) -> Result<(), ReadError> {
    let reason = if event.version != previous.version + 1 {
        format!("version {} follows {}", event.version, previous.version)
    } else if event.prev_hash != previous.hash {
        "it names another hash than that of the event before".to_owned()
    } else {
        return Ok(());
    };
    Err(ReadError::ChainBroken {
        task_id: event.task_id,
        seq: event.seq,
        reason,
    })
}
