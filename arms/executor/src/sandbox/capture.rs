//! Draining an output: bounded memory, every byte hashed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

/// Bytes kept of an output's start, of a task's step.
pub const HEAD_BYTES: usize = 16 << 10;
/// Bytes kept of an output's end.
pub const TAIL_BYTES: usize = 16 << 10;
/// Bytes read at once: the capacity of a pipe.
const CHUNK_BYTES: usize = 64 << 10;

/// What is kept of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes: as many as the job asked for, at most.
    pub head: Vec<u8>,
    /// The last [`TAIL_BYTES`] at most of what the head does not hold.
    pub tail: Vec<u8>,
    /// Bytes in all.
    pub bytes: u64,
    /// SHA-256 over all bytes, lower-case hex.
    pub digest: String,
}

impl Captured {
    /// Nothing was written.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(&[], 0)
    }

    /// What is kept of an output that is known whole, with so many bytes of its start.
    #[must_use]
    pub fn of(output: &[u8], head_bytes: usize) -> Self {
        let mut recorder = Recorder::new(head_bytes);
        recorder.record(output);
        recorder.finish()
    }

    /// Whether bytes between head and tail were left out.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.bytes > (self.head.len() + self.tail.len()) as u64
    }
}

/// The bytes that several outputs may have together.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    left: Arc<AtomicU64>,
    exceeded: CancellationToken,
}

impl Allowance {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(bytes)),
            exceeded: CancellationToken::new(),
        }
    }

    /// Cancelled once more was written than allowed.
    pub(super) fn exceeded(&self) -> &CancellationToken {
        &self.exceeded
    }

    /// Whether there was enough left.
    fn spend(&self, bytes: u64) -> bool {
        let enough = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok();
        if !enough {
            self.exceeded.cancel();
        }
        enough
    }
}

struct Recorder {
    head_bytes: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes: u64,
    hash: Sha256,
}

impl Recorder {
    fn new(head_bytes: usize) -> Self {
        Self {
            head_bytes,
            head: Vec::new(),
            tail: VecDeque::new(),
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    fn record(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.hash.update(chunk);
        let (head, rest) = chunk.split_at(chunk.len().min(self.head_bytes - self.head.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    fn finish(self) -> Captured {
        Captured {
            head: self.head,
            tail: self.tail.into(),
            bytes: self.bytes,
            digest: hex::encode(self.hash.finalize()),
        }
    }
}

/// Reads an output to its end, until more came than allowed, or until told to stop waiting for more.
pub(super) async fn drain(
    mut output: impl AsyncRead + Unpin,
    head_bytes: usize,
    allowance: Allowance,
    stop: CancellationToken,
) -> Captured {
    let mut recorder = Recorder::new(head_bytes);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            read = output.read(&mut chunk) => read,
            () = stop.cancelled() => break,
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                recorder.record(&chunk[..count]);
                if !allowance.spend(count as u64) {
                    break;
                }
            }
        }
    }
    recorder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn captured(output: &[u8]) -> Captured {
        drain(
            output,
            HEAD_BYTES,
            Allowance::new(u64::MAX),
            CancellationToken::new(),
        )
        .await
    }

    #[tokio::test]
    async fn a_short_output_is_kept_whole() {
        let kept = captured(b"hello\n").await;
        assert_eq!(
            (kept.head.as_slice(), kept.tail.as_slice()),
            (b"hello\n".as_slice(), b"".as_slice())
        );
        assert!(!kept.is_truncated());
        assert_eq!(kept.digest, hex::encode(Sha256::digest(b"hello\n")));
    }

    #[tokio::test]
    async fn head_and_tail_meet_exactly_at_their_sum() {
        let output: Vec<u8> = (0..HEAD_BYTES + TAIL_BYTES)
            .map(|n| (n % 251) as u8)
            .collect();
        let kept = captured(&output).await;
        assert_eq!([kept.head.clone(), kept.tail.clone()].concat(), output);
        assert!(!kept.is_truncated());
    }

    #[tokio::test]
    async fn of_a_long_output_both_ends_are_kept_and_all_is_hashed() {
        let output: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
        let kept = captured(&output).await;
        assert_eq!(kept.head, output[..HEAD_BYTES]);
        assert_eq!(kept.tail, output[output.len() - TAIL_BYTES..]);
        assert_eq!(kept.bytes, 1_000_003);
        assert!(kept.is_truncated());
        assert_eq!(kept.digest, hex::encode(Sha256::digest(&output)));
    }

    #[tokio::test]
    async fn a_job_may_keep_more_of_the_start() {
        let output = vec![b'x'; 200_000];
        let all = CancellationToken::new();
        let kept = drain(output.as_slice(), 200_000, Allowance::new(u64::MAX), all).await;
        assert_eq!((kept.head.len(), kept.tail.len()), (200_000, 0));
        assert!(!kept.is_truncated());
    }

    #[tokio::test]
    async fn spending_more_than_allowed_is_told() {
        let allowance = Allowance::new(10);
        drain(
            b"0123456789".as_slice(),
            HEAD_BYTES,
            allowance.clone(),
            CancellationToken::new(),
        )
        .await;
        assert!(!allowance.exceeded().is_cancelled());
        let endless = tokio::io::repeat(b'x');
        let kept = drain(
            endless,
            HEAD_BYTES,
            allowance.clone(),
            CancellationToken::new(),
        )
        .await;
        assert!(allowance.exceeded().is_cancelled());
        assert!(kept.bytes <= CHUNK_BYTES as u64, "went on reading");
    }

    #[tokio::test]
    async fn an_output_that_never_ends_is_left_when_told() {
        let (_survivor, output) = tokio::io::duplex(64);
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(
            drain(output, HEAD_BYTES, Allowance::new(10), stop).await,
            Captured::empty()
        );
    }
}
