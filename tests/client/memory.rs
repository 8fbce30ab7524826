//! Bodies are streamed: a payload far larger than the allowance goes up and comes down
//! in a process that hardly grows. It is a process of its own, so that no other test counts.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use privicorefs::store::{Payload, Store};

use crate::house::conformance::{content, mark, meta};
use crate::house::{Connected, run_ok};

const CHUNK: usize = 1 << 20;
const CHUNKS: usize = 256;
/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(110);
/// Engine and client together, both in this process.
const ALLOWANCE_KIB: u64 = 64 << 10;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Set for the process that is measured.
const MEASURED: &str = "PRIVICOREFS_TEST_MEASURED";

#[test]
fn large_payloads_pass_in_constant_memory() {
    if std::env::var_os(MEASURED).is_some() {
        tokio::runtime::Runtime::new().unwrap().block_on(large_payloads());
        return;
    }
    let this = "memory::large_payloads_pass_in_constant_memory";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = run_ok(command.args(["--exact", this]).env(MEASURED, "1"), PATIENCE);
    assert!(output.stdout.contains("1 passed"), "{}", output.stdout);
}

async fn large_payloads() {
    let connected = Connected::new().await;
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
    let token = connected.client.put(&meta, &mark(1), payload).await.unwrap();

    let download = connected.client.get(&token).await.unwrap();
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
    connected.end().await;
}
