//! WebSockets, for the channel and for streams that come over one.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use url::Url;

use super::reply::presentable;
use super::secret::place;
use super::transport::{Connection, Incoming};

/// Largest message taken: far above any inline payload, far below a memory problem.
const MESSAGE_LIMIT: usize = 16 << 20;

/// An open WebSocket.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// Opens a WebSocket, with TLS where `tls` is given.
pub(super) async fn open(
    url: &Url,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<Box<dyn Connection>, String> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT))
        .read_buffer_size(64 << 10);
    let opening = tokio_tungstenite::connect_async_tls_with_config(
        url.as_str(),
        Some(config),
        true,
        Some(tls.map_or(Connector::Plain, Connector::Rustls)),
    );
    match opening.await {
        Ok((socket, _)) => Ok(Box::new(Socket(socket))),
        Err(error) => Err(format!("{}: {}", place(url), presentable(&error.to_string()))),
    }
}

impl Socket {
    async fn put(&mut self, message: Message) -> Result<(), String> {
        self.0.send(message).await.map_err(|error| presentable(&error.to_string()))
    }
}

#[async_trait]
impl Connection for Socket {
    async fn receive(&mut self) -> Result<Incoming, String> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(Incoming::Text(text.as_str().to_owned())),
            Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Binary(bytes)),
            Some(Ok(Message::Close(_))) | None => Ok(Incoming::Closed),
            Some(Ok(_)) => Ok(Incoming::Keepalive),
            Some(Err(error)) => Err(presentable(&error.to_string())),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), String> {
        self.put(Message::text(text)).await
    }

    async fn ping(&mut self) -> Result<(), String> {
        self.put(Message::Ping(Default::default())).await
    }

    async fn close(&mut self) {
        // Whether the other side hears it makes no difference to this one.
        let _ = self.0.close(None).await;
    }
}
