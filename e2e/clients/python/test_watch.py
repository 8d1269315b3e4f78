"""Watches: the past, then the future; resumed, with bookmarks, expired; and an informer's cache."""

import logging
import threading
import unittest

from kubernetes import client, informer, watch

from cluster import ClusterTest, config_map, until

# An informer that is stopped tells at length that its connection ended.
logging.getLogger("kubernetes.informer").setLevel(logging.CRITICAL)


class Watching(ClusterTest):
    def create(self, name, labels, **data):
        return self.core.create_namespaced_config_map(self.namespace, config_map(name, labels, **data))

    def events(self, count, **query):
        """So many events of a watch, as (type, name, data)."""
        watcher, seen = watch.Watch(), []
        stream = watcher.stream(self.core.list_namespaced_config_map, self.namespace, timeout_seconds=30, **query)
        for event in stream:
            seen.append((event["type"], event["object"].metadata.name, (event["object"].data or {}).get("k")))
            if len(seen) == count:
                watcher.stop()
        return seen

    def test_a_watch_without_a_version_begins_with_what_is_there(self):
        self.create("here", {"of": "first"}, k="1")
        self.assertEqual(self.events(1, label_selector="of=first"), [("ADDED", "here", "1")])

    def test_a_watch_resumes_exactly_where_a_list_or_an_event_was(self):
        before = self.core.list_namespaced_config_map(self.namespace).metadata.resource_version
        made = self.create("resumed", {"of": "resume"}, k="1")
        made.data["k"] = "2"
        changed = self.core.replace_namespaced_config_map("resumed", self.namespace, made)
        self.core.delete_namespaced_config_map("resumed", self.namespace)
        query = {"label_selector": "of=resume"}
        everything = [("ADDED", "resumed", "1"), ("MODIFIED", "resumed", "2"), ("DELETED", "resumed", "2")]
        self.assertEqual(self.events(3, resource_version=before, **query), everything)
        self.assertEqual(
            self.events(1, resource_version=changed.metadata.resource_version, **query), everything[2:]
        )

    def test_an_object_comes_and_goes_with_its_selection(self):
        made = self.create("chosen", {"pick": "no"})
        since = made.metadata.resource_version
        for label in ("yes", "yes-again", "no"):
            self.core.patch_namespaced_config_map("chosen", self.namespace, {"metadata": {"labels": {"pick": label}}})
        seen = self.events(3, resource_version=since, label_selector="pick in (yes, yes-again)")
        self.assertEqual([kind for kind, _, _ in seen], ["ADDED", "MODIFIED", "DELETED"])

    def test_a_watch_ends_with_its_timeout_and_goes_on_without_a_gap(self):
        watcher = watch.Watch()
        since = self.core.list_namespaced_config_map(self.namespace).metadata.resource_version
        query = {"label_selector": "of=timeout", "timeout_seconds": 1}
        self.create("one", {"of": "timeout"})
        names = [
            event["object"].metadata.name
            for event in watcher.stream(
                self.core.list_namespaced_config_map, self.namespace, resource_version=since, **query
            )
        ]
        self.create("two", {"of": "timeout"})
        names += [
            event["object"].metadata.name
            for event in watcher.stream(
                self.core.list_namespaced_config_map,
                self.namespace,
                resource_version=watcher.resource_version,
                **query,
            )
        ]
        self.assertEqual(names, ["one", "two"])

    def test_a_streaming_list_ends_with_a_bookmark(self):
        for name in ("a", "b"):
            self.create(name, {"of": "stream"})
        watcher, seen = watch.Watch(), []
        for event in watcher.stream(
            self.core.list_namespaced_config_map,
            self.namespace,
            label_selector="of=stream",
            send_initial_events=True,
            resource_version_match="NotOlderThan",
            allow_watch_bookmarks=True,
            timeout_seconds=30,
        ):
            raw = event["raw_object"]["metadata"]
            seen.append((event["type"], raw.get("name"), (raw.get("annotations") or {})))
            if event["type"] == "BOOKMARK":
                watcher.stop()
        self.assertEqual([(kind, name) for kind, name, _ in seen[:2]], [("ADDED", "a"), ("ADDED", "b")])
        self.assertEqual(seen[2][0::2], ("BOOKMARK", {"k8s.io/initial-events-end": "true"}))
        self.assertGreater(int(watcher.resource_version), 0, "the library takes the bookmark's version over")

    def test_a_version_that_cannot_be_is_refused(self):
        error = self.refused(422, "Invalid", self.core.list_namespaced_pod, self.namespace, resource_version="x")
        self.assertIn('resourceVersion: Invalid value: "x"', error.said["message"])
        error = self.refused(
            504,
            "Timeout",
            self.core.list_namespaced_pod,
            self.namespace,
            resource_version=str(10**12),
            resource_version_match="NotOlderThan",
        )
        self.assertEqual(error.said["details"]["causes"][0]["reason"], "ResourceVersionTooLarge")

    def test_an_informers_cache_is_what_the_api_has(self):
        seen, lock = [], threading.Lock()
        shared = informer.SharedInformer(
            self.core.list_namespaced_config_map, namespace=self.namespace, label_selector="of=informer"
        )

        def note(kind):
            def handler(item):
                with lock:
                    seen.append((kind, item.metadata.name))

            return handler

        for kind in ("ADDED", "MODIFIED", "DELETED"):
            shared.add_event_handler(kind, note(kind))
        self.create("before", {"of": "informer"})
        shared.start()
        try:
            until("the informer has listed", lambda: seen)
            self.create("after", {"of": "informer"}, k="1")
            self.core.patch_namespaced_config_map("after", self.namespace, {"data": {"k": "2"}})
            self.core.delete_namespaced_config_map("before", self.namespace)
            until("the informer has seen the deletion", lambda: ("DELETED", "before") in seen)
            cached = {item.metadata.name: item.data for item in shared.cache.list()}
            self.assertEqual(cached, {"after": {"k": "2"}})
        finally:
            shared.stop()
        expected = [("ADDED", "before"), ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")]
        self.assertEqual(seen, expected)

    def test_a_list_of_metadata_has_nothing_else(self):
        self.create("meta", {"of": "metadata"}, k="1")
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        answer = client.ApiClient().call_api(
            f"/api/v1/namespaces/{self.namespace}/configmaps",
            "GET",
            query_params=[("labelSelector", "of=metadata")],
            header_params={"Accept": accept},
            response_types_map={200: "object"},
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
        )
        self.assertEqual(answer["kind"], "PartialObjectMetadataList")
        self.assertEqual([item["metadata"]["name"] for item in answer["items"]], ["meta"])
        self.assertNotIn("data", answer["items"][0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
