//! TLS on both connections: trusted by the configured CA file, refused without it.

use std::net::SocketAddr;
use std::sync::Arc;

use privicorefs::env::Env;
use privicorefs::privicore::Client;
use privicorefs::store::StoreErrorKind;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::house::Connected;
use crate::house::conformance::{content, fetch, put};

/// A self-signed certificate for `localhost`, as PEM, and a server that has it.
fn certificate() -> (String, ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (certificate.pem(), config)
}

/// Speaks TLS to whoever connects, and plain TCP to `behind`.
async fn terminator(config: ServerConfig, behind: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut outside) = acceptor.accept(outside).await {
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_behind_tls_needs_its_certificate_authority() {
    let connected = Connected::new().await;
    let (pem, server) = certificate();
    let port = terminator(server, connected.engine.addr()).await;
    let mut config = connected.config.clone();
    config.api_url = format!("https://localhost:{port}").parse().unwrap();
    config.ws_url = format!("wss://localhost:{port}/ws").parse().unwrap();

    let error = Client::connect(config.clone(), Env::system()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");

    let missing = connected.dir.path().join("no-such.pem");
    let mut unreadable = config.clone();
    unreadable.ca_file = Some(missing);
    let error = Client::connect(unreadable, Env::system()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Local);
    assert!(error.to_string().contains("no-such.pem"), "{error}");

    let ca_file = connected.dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    config.ca_file = Some(ca_file);
    let client = Client::connect(config, Env::system()).await.unwrap();
    for len in [1_000, 200_000] {
        let bytes = content(1, len);
        let token = put(&*client, "tls", "x.bin", &bytes).await;
        assert!(fetch(&*client, &token).await == bytes);
    }
    client.close().await;
    connected.end().await;
}
