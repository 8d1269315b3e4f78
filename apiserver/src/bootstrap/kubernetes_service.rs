//! The Service `default/kubernetes`, by which pods find the API, with its Endpoints and EndpointSlice. What
//! they should be is a pure function of the addresses; [`keep`] makes them so and repairs them.

use super::repair;
use crate::error::Error;
use crate::server::Server;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use store::{Change, Watch};

const NAME: &str = "kubernetes";
/// The Service's own port.
const PORT: u16 = 443;

/// Where the three objects lie in the store.
const SERVICE: &str = "/core/services/default/kubernetes";
const ENDPOINTS: &str = "/core/endpoints/default/kubernetes";
const SLICE: &str = "/discovery.k8s.io/endpointslices/default/kubernetes";

/// The address of the Service: the first of the services' network.
pub fn address(network: (Ipv4Addr, u8)) -> Ipv4Addr {
    let (base, length) = network;
    let mask = u32::MAX << (32 - u32::from(length.clamp(1, 31)));
    Ipv4Addr::from((u32::from(base) & mask) + 1)
}

/// Make the three objects what they should be, once.
pub async fn reconcile(server: &Server, api: SocketAddr) -> Result<(), Error> {
    let service_address = address(server.options.service_network);
    repair(server, SERVICE, |old| service(old, service_address, api.port())).await?;
    repair(server, ENDPOINTS, |old| endpoints(old, api)).await?;
    repair(server, SLICE, |old| slice(old, api)).await
}

/// Repair the three objects whenever somebody has changed them, until a watch ends with the store.
pub async fn keep(server: &Server, api: SocketAddr) -> Result<(), Error> {
    loop {
        let since = server.store.current();
        reconcile(server, api).await?;
        let mut watches = Vec::new();
        for key in [SERVICE, ENDPOINTS, SLICE] {
            watches.push(server.store.watch(key, since)?);
        }
        let moved = watches
            .iter_mut()
            .map(|watch| Box::pin(next_foreign(watch.as_mut())));
        match futures::future::select_all(moved).await.0 {
            Ok(()) | Err(store::Error::Compacted { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next change of one of the three objects (a key may be the beginning of another).
async fn next_foreign(watch: &mut dyn Watch) -> Result<(), store::Error> {
    let ours = |change: &Change| [SERVICE, ENDPOINTS, SLICE].contains(&change.key.as_str());
    while !watch.next().await?.iter().any(ours) {}
    Ok(())
}

/// `old` with the name and these labels; other labels and whatever else people added stay.
fn named(old: &Value, labels: &[(&str, &str)]) -> Value {
    let mut object = match old.is_object() {
        true => old.clone(),
        false => json!({}),
    };
    object["metadata"]["name"] = NAME.into();
    object["metadata"]["namespace"] = "default".into();
    for (key, value) in labels {
        object["metadata"]["labels"][*key] = (*value).into();
    }
    object
}

fn service(old: &Value, address: Ipv4Addr, target: u16) -> Value {
    let mut service = named(old, &[("component", "apiserver"), ("provider", "kubernetes")]);
    let address = address.to_string();
    service["spec"] = json!({
        "clusterIP": address,
        "clusterIPs": [address],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": "https", "port": PORT, "protocol": "TCP", "targetPort": target}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    });
    if !service["status"].is_object() {
        service["status"] = json!({"loadBalancer": {}});
    }
    service
}

fn endpoints(old: &Value, api: SocketAddr) -> Value {
    let mut endpoints = named(old, &[("endpointslice.kubernetes.io/skip-mirror", "true")]);
    endpoints["subsets"] = json!([{
        "addresses": [{"ip": api.ip().to_string()}],
        "ports": [{"name": "https", "port": api.port(), "protocol": "TCP"}],
    }]);
    endpoints
}

fn slice(old: &Value, api: SocketAddr) -> Value {
    let mut slice = named(old, &[("kubernetes.io/service-name", NAME)]);
    slice["addressType"] = match api.ip() {
        IpAddr::V4(_) => "IPv4".into(),
        IpAddr::V6(_) => "IPv6".into(),
    };
    slice["endpoints"] = json!([{"addresses": [api.ip().to_string()], "conditions": {"ready": true}}]);
    slice["ports"] = json!([{"name": "https", "port": api.port(), "protocol": "TCP"}]);
    slice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Options;
    use std::sync::Arc;
    use store::{MemoryStore, Store};

    const API: &str = "127.0.0.1:6443";

    async fn stored(store: &MemoryStore, key: &str) -> Value {
        let entry = store.get(key).await.unwrap().expect("it is there");
        serde_json::from_slice(&entry.value).unwrap()
    }

    #[test]
    fn the_service_has_the_first_address_of_the_network() {
        for (network, first) in [
            (([10, 96, 0, 0], 12), [10, 96, 0, 1]),
            (([10, 97, 3, 4], 12), [10, 96, 0, 1]),
            (([192, 168, 1, 0], 24), [192, 168, 1, 1]),
        ] {
            assert_eq!(
                address((Ipv4Addr::from(network.0), network.1)),
                Ipv4Addr::from(first)
            );
        }
    }

    #[test]
    fn what_is_right_is_left_alone_and_what_people_added_stays() {
        let api: SocketAddr = API.parse().unwrap();
        let mut right = slice(&Value::Null, api);
        right["metadata"]["labels"]["mine"] = "1".into();
        right["metadata"]["uid"] = "u".into();
        assert_eq!(slice(&right, api), right);
        let right = endpoints(&Value::Null, api);
        assert_eq!(endpoints(&right, api), right);
        let first = service(&Value::Null, Ipv4Addr::new(10, 96, 0, 1), 6443);
        assert_eq!(service(&first, Ipv4Addr::new(10, 96, 0, 1), 6443), first);
    }

    #[tokio::test]
    async fn what_was_changed_or_deleted_is_repaired_and_what_moved_follows() {
        let store = Arc::new(MemoryStore::new());
        let server = Arc::new(Server::new(store.clone(), Options::default()));
        let keeping = tokio::spawn({
            let server = server.clone();
            async move { keep(&server, API.parse().unwrap()).await }
        });
        let mut watch = store.watch("/", 0).unwrap();
        let mut seen = 0;
        while seen < 3 {
            seen += watch.next().await.unwrap().len();
        }
        let service = stored(&store, SERVICE).await;
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 6443);
        let entry = store.get(SLICE).await.unwrap().unwrap();
        store.delete(SLICE, entry.modified).await.unwrap();
        while store.get(SLICE).await.unwrap().is_none() {
            watch.next().await.unwrap();
        }
        keeping.abort();
        reconcile(&server, "127.0.0.1:7000".parse().unwrap())
            .await
            .unwrap();
        let endpoints = stored(&store, ENDPOINTS).await;
        assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 7000);
        assert_eq!(
            service["metadata"]["uid"],
            stored(&store, SERVICE).await["metadata"]["uid"]
        );
    }
}
