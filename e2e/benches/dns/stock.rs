//! hickory-server as it comes: zone files, an in-memory zone for each, the catalog, the server. The bench starts itself
//! as this.

use anyhow::{Context, anyhow, bail};
use hickory_proto::rr::{LowerName, Name};
use hickory_server::Server;
use hickory_server::store::file::{FileConfig, FileZoneHandler};
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tokio::net::UdpSocket;

/// The bench's argument that makes it such a server; apexes and zone files follow, in turn.
pub const ARGUMENT: &str = "serve-stock-hickory";

/// Serve on a free port, which is said on standard output, until somebody ends this process.
pub async fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let mut catalog = Catalog::new();
    for pair in arguments.chunks(2) {
        let [apex, file] = pair else {
            bail!("an apex without a file");
        };
        let origin = Name::from_str(apex)?;
        let config = FileConfig {
            zone_path: PathBuf::from(file),
        };
        let zone = FileZoneHandler::try_from_config(
            origin.clone(),
            ZoneType::Primary,
            AxfrPolicy::Deny,
            None,
            &config,
        );
        let zone: Arc<dyn ZoneHandler> = Arc::new(zone.map_err(|why| anyhow!("{file}: {why}"))?);
        catalog.upsert(LowerName::new(&origin), vec![zone]);
    }
    let mut server = Server::new(catalog);
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    writeln!(
        std::io::stdout(),
        "DNS at {} for zone files",
        socket.local_addr()?
    )?;
    server.register_socket(socket);
    server.block_until_done().await.context("stock hickory-server")
}
