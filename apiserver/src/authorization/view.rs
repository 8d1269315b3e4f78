//! The [`Policy`] of what the store holds. It is followed through a watch, at the moment of each question: a change
//! that was answered counts for every question after it, and a question costs a comparison of two numbers when
//! nothing was written.

use super::policy::{PREFIX, Policy};
use futures::FutureExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use store::{Error, Revision, Store, Watch};
use tokio::sync::Mutex;

/// What roles and bindings say, as of the last write; see the head of this file.
#[derive(Default)]
pub struct View {
    policy: RwLock<Policy>,
    /// Everything up to this revision is in `policy`.
    seen: AtomicU64,
    watch: Mutex<Option<Box<dyn Watch>>>,
}

impl View {
    /// The policy as of now or later.
    pub async fn current(&self, store: &dyn Store) -> Result<RwLockReadGuard<'_, Policy>, Error> {
        let current = store.current();
        if self.seen.load(Ordering::Acquire) < current || current == 0 {
            self.follow(store, current).await?;
        }
        Ok(self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn follow(&self, store: &dyn Store, until: Revision) -> Result<(), Error> {
        let mut watch = self.watch.lock().await;
        loop {
            let Some(changes) = watch.as_mut() else {
                *watch = Some(self.start(store).await?);
                continue;
            };
            // What there is now, without waiting for more.
            match changes.next().now_or_never() {
                Some(Ok(found)) => {
                    let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
                    for change in found {
                        let after = change.after.as_ref().map(|entry| entry.value.as_ref());
                        policy.change(&change.key, after);
                    }
                }
                Some(Err(Error::Compacted { .. })) => {
                    *watch = None;
                    continue;
                }
                // A store that is closed can still be read, and nothing in it changes.
                Some(Err(Error::Broken(_))) => return Ok(()),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            let seen = changes.progress();
            self.seen.store(seen, Ordering::Release);
            if seen >= until {
                return Ok(());
            }
        }
    }

    /// Read everything, and watch from there.
    async fn start(&self, store: &dyn Store) -> Result<Box<dyn Watch>, Error> {
        let page = store.list(PREFIX, None, 0, None).await?;
        let mut policy = Policy::default();
        for entry in &page.entries {
            policy.change(&entry.key, Some(&entry.value));
        }
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
        store.watch(PREFIX, page.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::User;
    use crate::authorization::Attributes;
    use serde_json::json;
    use store::MemoryStore;

    async fn may_jane_get_pods(view: &View, store: &MemoryStore) -> bool {
        let asked = Attributes {
            verb: "get".into(),
            resource: "pods".into(),
            ..Attributes::default()
        };
        let policy = view.current(store).await.unwrap();
        policy.decide(&User::new("jane", &[]), &asked).allowed
    }

    #[tokio::test]
    async fn a_change_counts_for_the_next_question() {
        let (store, view) = (MemoryStore::new(), View::default());
        assert!(!may_jane_get_pods(&view, &store).await);
        let role =
            json!({"metadata": {}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        let binding = json!({"metadata": {}, "subjects": [{"kind": "User", "name": "jane"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}});
        store
            .create(
                "/rbac.authorization.k8s.io/clusterroles/r",
                role.to_string().into(),
            )
            .await
            .unwrap();
        let key = "/rbac.authorization.k8s.io/clusterrolebindings/b";
        for n in 0..50 {
            let other = format!("/core/configmaps/default/{n}");
            store.create(&other, "{}".into()).await.unwrap();
            let entry = store.create(key, binding.to_string().into()).await.unwrap();
            assert!(may_jane_get_pods(&view, &store).await);
            store.delete(key, entry.modified).await.unwrap();
            assert!(!may_jane_get_pods(&view, &store).await);
            store.compact(store.current()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_view_that_fell_behind_the_log_reads_everything_anew() {
        let (store, view) = (MemoryStore::new(), View::default());
        assert!(!may_jane_get_pods(&view, &store).await);
        for n in 0..10 {
            let key = format!("/rbac.authorization.k8s.io/clusterroles/{n}");
            store.create(&key, r#"{"metadata":{}}"#.into()).await.unwrap();
        }
        store.compact(store.current()).await.unwrap();
        assert!(!may_jane_get_pods(&view, &store).await);
        assert_eq!(view.seen.load(Ordering::Acquire), store.current());
    }
}
