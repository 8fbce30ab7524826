//! Bodies are streamed: a payload far larger than the allowance goes up and comes down
//! in a process that hardly grows. Alone in its file, so that it has a process of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "shared support")]

mod client_support;
mod conformance;

use std::sync::Arc;

use bytes::Bytes;
use client_support::Bench;
use conformance::{content, mark, meta};
use futures_util::{StreamExt, TryStreamExt, stream};
use privicorefs::store::{Payload, Store};

const CHUNK: usize = 1 << 20;
const CHUNKS: usize = 256;
/// Engine and client together, both in this process.
const ALLOWANCE_KIB: u64 = 64 << 10;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_pass_in_constant_memory() {
    let bench = Bench::new().await;
    let before = peak_kib();
    let chunk = content(7, CHUNK);
    let source = chunk.clone();
    let payload = Payload::Stream {
        len: (CHUNK * CHUNKS) as u64,
        open: Arc::new(move || {
            let source = source.clone();
            // A copy per chunk, as a real source would make.
            stream::iter((0..CHUNKS).map(move |_| Ok(Bytes::copy_from_slice(&source)))).boxed()
        }),
    };
    let meta = meta("large", "large.bin", 1);
    let token = bench.client.put(&meta, &mark(1), payload).await.unwrap();

    let download = bench.client.get(&token).await.unwrap();
    let mut at = 0;
    let mut stream = download.stream;
    while let Some(piece) = stream.try_next().await.unwrap() {
        for byte_run in piece.chunks(4_096) {
            let from = at % CHUNK;
            let first = byte_run.len().min(CHUNK - from);
            assert!(byte_run[..first] == chunk[from..from + first]);
            assert!(byte_run[first..] == chunk[..byte_run.len() - first]);
            at += byte_run.len();
        }
    }
    assert_eq!(at, CHUNK * CHUNKS);
    let grown = peak_kib() - before;
    assert!(grown < ALLOWANCE_KIB, "grew by {grown} KiB for {CHUNKS} MiB");
    bench.end().await;
}
