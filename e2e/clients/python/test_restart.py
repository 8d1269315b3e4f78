"""Restarts: watches end cleanly, what resumes gets exactly what was missed, and caches end up right."""

import collections
import logging
import threading
import unittest

from kubernetes import informer, watch
from urllib3.exceptions import HTTPError

from cluster import IDLE, ClusterTest, config_map, petset, stateful_set, until

# An informer whose connection is refused tells it at length.
logging.getLogger("kubernetes.informer").setLevel(logging.CRITICAL)


class Restarting(ClusterTest):
    def events_since(self, version, count):
        seen, watcher = [], watch.Watch()
        for event in watcher.stream(
            self.core.list_namespaced_config_map,
            self.namespace,
            label_selector="of=restart",
            resource_version=version,
            timeout_seconds=30,
        ):
            seen.append((event["type"], event["object"].metadata.name, (event["object"].data or {}).get("k")))
            if len(seen) == count:
                watcher.stop()
        return seen

    def test_a_watch_ends_cleanly_when_petset_stops_and_resumes_without_a_gap(self):
        for how, ends_cleanly in (("terminate", True), ("kill", False)):
            with self.subTest(how):
                listed = self.core.list_namespaced_config_map(self.namespace)
                since, ended, watching = listed.metadata.resource_version, [], watch.Watch()
                first = threading.Event()

                def follow():
                    try:
                        for _ in watching.stream(
                            self.core.list_namespaced_config_map,
                            self.namespace,
                            label_selector="of=restart",
                            resource_version=since,
                            timeout_seconds=60,
                        ):
                            first.set()
                        ended.append("cleanly")
                    except HTTPError as error:
                        ended.append(type(error).__name__)

                thread = threading.Thread(target=follow, daemon=True)
                thread.start()
                made = self.core.create_namespaced_config_map(self.namespace, config_map(how, {"of": "restart"}, k="1"))
                self.assertTrue(first.wait(30))
                petset(how)
                thread.join(30)
                self.assertFalse(thread.is_alive(), "the watch does not end")
                self.assertEqual(ended == ["cleanly"], ends_cleanly, ended)
                petset("start")
                made.data["k"] = "2"
                self.core.replace_namespaced_config_map(how, self.namespace, made)
                self.core.delete_namespaced_config_map(how, self.namespace)
                missed = [("MODIFIED", how, "2"), ("DELETED", how, "2")]
                self.assertEqual(self.events_since(watching.resource_version, 2), missed)
                self.assertEqual(self.events_since(since, 3), [("ADDED", how, "1"), *missed])

    def test_informers_of_a_set_that_is_scaled_meanwhile_know_what_there_is(self):
        history = collections.defaultdict(list)
        informers = {
            kind: informer.SharedInformer(listing, namespace=self.namespace)
            for kind, listing in (
                ("sets", self.apps.list_namespaced_stateful_set),
                ("pods", self.core.list_namespaced_pod),
            )
        }
        for shared in informers.values():
            for event in ("ADDED", "DELETED"):
                shared.add_event_handler(event, lambda item, event=event: history[item.metadata.uid].append(event))
            shared.start()
        self.apps.create_namespaced_stateful_set(self.namespace, stateful_set("web", IDLE, replicas=2))

        def has(replicas):
            pods = self.core.list_namespaced_pod(self.namespace).items
            return len([pod for pod in pods if not pod.metadata.deletion_timestamp]) == replicas

        before = 2
        for how, replicas in (("terminate", 3), ("kill", 1), ("terminate", 2)):
            until(f"there are {before} pods", lambda: has(before))
            before = replicas
            self.apps.patch_namespaced_stateful_set_scale("web", self.namespace, {"spec": {"replicas": replicas}})
            petset(how)
            petset("start")

        def settled():
            found = self.apps.read_namespaced_stateful_set("web", self.namespace)
            status = found.status
            return (
                status.observed_generation == found.metadata.generation
                and (status.replicas, status.available_replicas) == (2, 2)
            )

        until("the set has two available pods", settled)

        def versions(items):
            return {item.metadata.uid: item.metadata.resource_version for item in items}

        def same():
            sets = self.apps.list_namespaced_stateful_set(self.namespace)
            pods = self.core.list_namespaced_pod(self.namespace)
            return versions(informers["sets"].cache.list()) == versions(sets.items) and versions(
                informers["pods"].cache.list()
            ) == versions(pods.items)

        until("the caches are what the API has", same)
        live = {item.metadata.uid for shared in informers.values() for item in shared.cache.list()}
        for uid, events in history.items():
            self.assertEqual(events, ["ADDED"] if uid in live else ["ADDED", "DELETED"])
        self.assertGreaterEqual(len(history), 4)
        for shared in informers.values():
            shared.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
