use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::*;

/// A mount that is dirty until told otherwise.
#[derive(Default)]
struct Fake {
    unmounted: Arc<AtomicBool>,
}

impl Mounted for Fake {
    fn status(&self) -> serde_json::Value {
        serde_json::json!({"mountpoint": "/mnt/x", "pid": 7})
    }

    fn pending(&self) -> BoxFuture<'static, Vec<serde_json::Value>> {
        Box::pin(async { vec![serde_json::json!({"operation": "get", "pool": "p"})] })
    }

    fn sync(
        &self,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            let left = Progress { files_left: 3, bytes_left: 10, records_left: 1 };
            progress(left);
            match timeout {
                None => {
                    tokio::time::sleep(2 * HEARTBEAT).await;
                    Ok(())
                }
                Some(_) => Err(Failure {
                    kind: FailureKind::Incomplete,
                    message: "3 files are not in the vault".to_owned(),
                    left: Some(left),
                }),
            }
        })
    }

    fn unmount(
        &self,
        _: Option<Duration>,
        _: bool,
        _: ProgressSink,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        struct SetOnDrop(Arc<AtomicBool>);
        impl Drop for SetOnDrop {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let dropped = SetOnDrop(Arc::clone(&self.unmounted));
        Box::pin(async move {
            let _dropped = dropped;
            std::future::pending().await
        })
    }
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    dir: TempDir,
    unmounted: Arc<AtomicBool>,
    server: Option<Server>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let unmounted = Arc::clone(&fake.unmounted);
        let server = {
            let _inside = runtime.enter();
            Server::start(dir.path().join("x.sock"), Arc::new(fake)).unwrap()
        };
        Self { runtime, dir, unmounted, server: Some(server) }
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.dir.path().join("x.sock")).unwrap()
    }
}

#[test]
fn status_is_one_line_each_way() {
    let bench = Bench::new();
    assert_eq!(bench.connect().status().unwrap()["pid"], 7);
}

#[test]
fn sync_streams_progress_and_ends() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    bench.connect().follow(Request::Sync { timeout_secs: None }, |p| seen.push(p)).unwrap();
    assert!(seen.iter().any(|p| p.files_left == 3), "{seen:?}");
}

#[test]
fn a_failure_says_what_is_left() {
    let bench = Bench::new();
    let request = Request::Sync { timeout_secs: Some(1) };
    match bench.connect().follow(request, |_| ()).unwrap_err() {
        ControlError::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Incomplete);
            assert_eq!(failure.left.unwrap().files_left, 3);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_client_that_hangs_up_drops_the_operation() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.dir.path().join("x.sock")).unwrap();
    let request = Request::Unmount { timeout_secs: None, force: false };
    let mut line = serde_json::to_vec(&request).unwrap();
    line.push(b'\n');
    stream.write_all(&line).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    drop(stream);
    bench.runtime.block_on(async {
        let dropped = async {
            while !bench.unmounted.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), dropped).await.unwrap();
    });
}

#[test]
fn nonsense_gets_a_reply_and_nothing_more() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.dir.path().join("x.sock")).unwrap();
    stream.write_all(b"{\"request\":\"explode\"}\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("bad_request"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn an_endless_request_is_cut_off() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.dir.path().join("x.sock")).unwrap();
    // the server may hang up before all of it is written
    let _ = stream.write_all(&[b'x'; 100_000]);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    assert!(text.len() < 1000);
}

#[test]
fn a_second_server_on_a_live_socket_is_refused_and_a_dead_one_is_replaced() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("x.sock");
    let _inside = bench.runtime.enter();
    let error = Server::start(path.clone(), Arc::new(Fake::default())).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let first = bench.server.take().unwrap();
    bench.runtime.block_on(first.finish(Duration::from_secs(20)));
    assert!(!path.exists(), "the socket's file is removed");
    // a file left by a process that was killed
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    Server::start(path, Arc::new(Fake::default())).unwrap();
}

#[test]
fn every_message_survives_its_line() {
    let requests = [
        Request::Status,
        Request::Sync { timeout_secs: Some(3) },
        Request::Unmount { timeout_secs: None, force: true },
    ];
    for request in requests {
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }
    let status = serde_json::json!({"mountpoint": "/with\nnewline"});
    let line = serde_json::to_string(&Reply::Status { status: status.clone() }).unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), Reply::Status { status });
}
