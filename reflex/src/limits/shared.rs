//! The buckets in Redis: what is asked at the same time goes there in one call.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};

use super::bucket::{Bucket, Taken};
use crate::link::Link;

/// Most requests in one call, and most that wait for the next.
const MAX_CALL: usize = 256;
const MAX_WAITING: usize = 4096;

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// A take that waits for its answer; nothing is answered where Redis can't be used.
struct Take {
    buckets: Vec<Bucket>,
    cost: u32,
    answer: oneshot::Sender<Taken>,
}

/// Buckets that all instances share.
pub struct SharedBuckets {
    link: Link,
    takes: mpsc::Sender<Take>,
}

impl SharedBuckets {
    /// Calls Redis from a task of its own, which ends with this value.
    pub fn new(link: Link) -> Self {
        let (takes, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(serve(link.clone(), waiting));
        Self { link, takes }
    }

    /// Takes `cost` tokens from each of `buckets`, or nothing. None where Redis does not say.
    pub async fn take(&self, buckets: &[Bucket], cost: u32) -> Option<Taken> {
        self.link.check().ok()?;
        let (answer, answered) = oneshot::channel();
        let take = Take {
            buckets: buckets.to_vec(),
            cost,
            answer,
        };
        self.takes.try_send(take).ok()?;
        answered.await.ok()
    }
}

async fn serve(link: Link, mut waiting: mpsc::Receiver<Take>) {
    let mut takes = Vec::with_capacity(MAX_CALL);
    while waiting.recv_many(&mut takes, MAX_CALL).await > 0 {
        let call = Call::of(&takes);
        let asked = async |connection: &mut MultiplexedConnection| call.ask(connection).await;
        match link.ask("limits", asked).await {
            Ok(answers) => call.deliver(&answers, &mut takes),
            // Their senders end with them, which tells whoever waits.
            Err(_) => takes.clear(),
        }
    }
}

/// One call of the script: the takes by equal buckets and cost.
struct Call {
    buckets: Vec<Bucket>,
    groups: Vec<Group>,
    /// The group of each take.
    places: Vec<usize>,
}

struct Group {
    cost: u32,
    requests: u32,
    /// Places of its buckets, from 0.
    buckets: Vec<usize>,
}

impl Call {
    fn of(takes: &[Take]) -> Self {
        let mut call = Self {
            buckets: Vec::new(),
            groups: Vec::new(),
            places: Vec::with_capacity(takes.len()),
        };
        let mut known: HashMap<&Bucket, usize> = HashMap::new();
        let mut groups: HashMap<(&[Bucket], u32), usize> = HashMap::new();
        for take in takes {
            let place = *groups.entry((&take.buckets, take.cost)).or_insert_with(|| {
                let buckets = take.buckets.iter().map(|bucket| {
                    *known.entry(bucket).or_insert_with(|| {
                        call.buckets.push(bucket.clone());
                        call.buckets.len() - 1
                    })
                });
                let buckets = buckets.collect();
                call.groups.push(Group {
                    cost: take.cost,
                    requests: 0,
                    buckets,
                });
                call.groups.len() - 1
            });
            call.groups[place].requests += 1;
            call.places.push(place);
        }
        call
    }

    /// Five numbers for each group, as the script says.
    async fn ask(&self, connection: &mut MultiplexedConnection) -> redis::RedisResult<Vec<u64>> {
        let mut invocation = SCRIPT.prepare_invoke();
        for bucket in &self.buckets {
            invocation.key(&*bucket.key);
            invocation
                .arg(bucket.limit.interval())
                .arg(bucket.limit.tokens());
        }
        for group in &self.groups {
            invocation
                .arg(group.requests)
                .arg(group.cost)
                .arg(group.buckets.len());
            for place in &group.buckets {
                invocation.arg(place + 1);
            }
        }
        invocation.invoke_async(connection).await
    }

    /// Tells every take what it came to; in a group who asked first is admitted first.
    fn deliver(&self, answers: &[u64], takes: &mut Vec<Take>) {
        let mut outcomes: Vec<Option<(u64, Taken)>> = answers
            .chunks_exact(5)
            .map(|answer| {
                let bucket = self
                    .buckets
                    .get(usize::try_from(answer[1]).ok()?.checked_sub(1)?)?;
                let taken = Taken {
                    admitted: false,
                    scope: bucket.scope,
                    limit: bucket.limit,
                    left: u32::try_from(answer[2]).ok()?,
                    full_in: Duration::from_micros(answer[3]),
                    wait: Duration::from_micros(answer[4]),
                };
                Some((answer[0], taken))
            })
            .collect();
        for (take, place) in takes.drain(..).zip(&self.places) {
            let Some(Some((admitted, taken))) = outcomes.get_mut(*place) else {
                continue;
            };
            let taken = Taken {
                admitted: *admitted > 0,
                ..taken.clone()
            };
            *admitted = admitted.saturating_sub(1);
            // Whoever asked may have gone.
            let _ = take.answer.send(taken);
        }
    }
}
