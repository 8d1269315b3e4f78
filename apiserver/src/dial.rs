//! The way to pods' addresses, for the proxy: this process need not be in the network that pods are in.

use async_trait::async_trait;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A way to connect with pods.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Connect over TCP.
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream>;
}

/// From the network that this process is in.
pub struct Direct;

#[async_trait]
impl Dial for Direct {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to).await
    }
}
