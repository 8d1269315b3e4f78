//! What controllers are made of: finalizers, owner references, events, an election on a Lease.

use super::{client, config_map, from, soon, until};
use e2e::binary::Cluster;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as StoredEvent, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, Error, Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Every ConfigMap gets a Secret of the same name and content, which it owns, and an event; before it goes, another
/// event.
async fn reconcile(
    map: Arc<ConfigMap>,
    client: Arc<Client>,
) -> Result<Action, kube::runtime::finalizer::Error<Error>> {
    let maps: Api<ConfigMap> = Api::default_namespaced((*client).clone());
    let recorder = Recorder::new((*client).clone(), Reporter::from("example.com/mirror".to_owned()));
    finalizer(&maps, "example.com/mirror", map, |event| async {
        let (map, reason) = match event {
            Finalizer::Apply(map) => (map, "Mirrored"),
            Finalizer::Cleanup(map) => (map, "Forgotten"),
        };
        if reason == "Mirrored" {
            let secrets: Api<Secret> = Api::default_namespaced((*client).clone());
            let secret: Secret = from(json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": map.name_any(), "ownerReferences": [map.controller_owner_ref(&())]},
                "stringData": map.data,
            }));
            let manager = PatchParams::apply("example.com/mirror").force();
            secrets
                .patch(&map.name_any(), &manager, &Patch::Apply(&secret))
                .await?;
        }
        let event = Event {
            type_: EventType::Normal,
            reason: reason.into(),
            note: Some(format!("{} was {reason}", map.name_any())),
            action: "Mirror".into(),
            secondary: None,
        };
        recorder.publish(&event, &map.object_ref(&())).await?;
        Ok(Action::await_change())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_finalizers_owned_objects_and_events_does_its_work() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let config = watcher::Config::default();
    let controller = Controller::new(maps.clone(), config.clone().labels("of=test"))
        .owns(secrets.clone(), config)
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            Arc::new(client.clone()),
        )
        .for_each(|_| std::future::ready(()));
    let mut tasks = JoinSet::new();
    tasks.spawn(controller);

    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .expect("it is new");
    let content = async |name: &str| {
        let secret = secrets.get_opt(name).await.map_err(|error| error.to_string())?;
        let data = secret.as_ref().and_then(|secret| secret.data.clone());
        let value = data.and_then(|data| data.get("k").cloned());
        Ok::<_, String>(value.and_then(|value| String::from_utf8(value.0).ok()))
    };
    let is = async |value: &str| {
        let found = content("a").await?;
        (found.as_deref() == Some(value))
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    };
    until("the secret is made", || is("1")).await;
    maps.patch(
        "a",
        &PatchParams::default(),
        &Patch::Merge(json!({"data": {"k": "2"}})),
    )
    .await
    .expect("it is patched");
    until("the secret follows", || is("2")).await;
    secrets
        .delete("a", &DeleteParams::default())
        .await
        .expect("it is there");
    until("the secret comes back", || is("2")).await;

    let uid = maps
        .get("a")
        .await
        .expect("it is there")
        .uid()
        .expect("it has one");
    maps.delete("a", &DeleteParams::default())
        .await
        .expect("it is there");
    let gone = await_condition(maps, "a", conditions::is_deleted(&uid));
    soon("the map goes when its finalizer has", gone)
        .await
        .expect("a watch");
    until("its secret is collected", || async {
        match content("a").await? {
            None => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    let events: Api<StoredEvent> = Api::default_namespaced(client);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let events = events.list(&about).await.expect("a list");
    let mut reasons: Vec<_> = events
        .items
        .into_iter()
        .filter_map(|event| event.reason)
        .collect();
    reasons.dedup();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        ["Mirrored", "Forgotten"]
            .iter()
            .all(|reason| reasons.iter().any(|r| r == reason)),
        "{reasons:?}"
    );
}

/// Take or renew a Lease; whether `me` leads now.
async fn lead(leases: &Api<Lease>, me: &str, is_over: bool) -> Result<bool, Error> {
    let now = jiff::Timestamp::now();
    let term = json!({
        "metadata": {"name": "leader"},
        "spec": {"holderIdentity": me, "leaseDurationSeconds": 15, "renewTime": now.to_string()},
    });
    let Some(found) = leases.get_opt("leader").await? else {
        return match leases.create(&PostParams::default(), &from(term)).await {
            Ok(_) => Ok(true),
            Err(Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        };
    };
    let holder = found
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref());
    if holder != Some(me) && !is_over {
        return Ok(false);
    }
    let mut mine: Lease = from(term);
    mine.metadata = found.metadata;
    match leases.replace("leader", &PostParams::default(), &mine).await {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_candidates_for_a_lease_one_leads_at_a_time() {
    let cluster = Cluster::up();
    let leases: Api<Lease> = Api::default_namespaced(client(&cluster).await);
    for is_over in [false, true] {
        // First nobody holds the lease, then its holder has let it run out.
        let race = (0..8).map(|number| {
            let leases = leases.clone();
            async move {
                lead(&leases, &format!("{is_over}-{number}"), is_over)
                    .await
                    .expect("an answer")
            }
        });
        let won = futures::future::join_all(race).await;
        let spec = leases
            .get("leader")
            .await
            .expect("it is there")
            .spec
            .expect("it has one");
        let holder = spec.holder_identity.expect("somebody leads");
        let winner: usize = holder
            .rsplit('-')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number");
        assert!(won[winner], "{holder} {won:?}");
        assert!(holder.starts_with(&is_over.to_string()), "{holder}");
        if !is_over {
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        }
        assert!(
            lead(&leases, &holder, false).await.expect("an answer"),
            "the holder renews"
        );
        assert!(
            !lead(&leases, "late", false).await.expect("an answer"),
            "nobody else does"
        );
    }
}
