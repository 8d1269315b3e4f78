"""The dynamic client, manifests in YAML, leader election."""

import os
import tempfile
import threading
import unittest

import yaml
from kubernetes import client, dynamic, utils
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

from cluster import IDLE, ClusterTest, stateful_set, until

EXAMPLES = os.path.join(os.path.dirname(__file__), "..", "..", "..", "examples")


class Dynamic(ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cache = os.path.join(tempfile.mkdtemp(), "discovery.json")
        cls.dynamic = dynamic.DynamicClient(client.ApiClient(), cache_file=cache)
        cls.maps = cls.dynamic.resources.get(api_version="v1", kind="ConfigMap")

    def test_kinds_are_found_by_what_people_call_them(self):
        sets = self.dynamic.resources.get(api_version="apps/v1", kind="StatefulSet")
        self.assertEqual((sets.name, sets.namespaced, sets.short_names), ("statefulsets", True, ["sts"]))
        self.assertIn("scale", sets.subresources)
        self.assertIn("status", sets.subresources)
        found = self.dynamic.resources.search(short_names=["pvc"])
        self.assertEqual({resource.name for resource in found}, {"persistentvolumeclaims"})
        self.assertFalse(self.dynamic.resources.get(api_version="v1", kind="Node").namespaced)

    def test_objects_go_through_their_life(self):
        body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "life"}, "data": {"k": "1"}}
        made = self.maps.create(body=body, namespace=self.namespace)
        self.assertEqual((made.kind, made.data.k), ("ConfigMap", "1"))
        patched = self.maps.patch(
            body={"metadata": {"name": "life"}, "data": {"k": "2"}}, namespace=self.namespace
        )
        self.assertEqual(patched.data.k, "2")
        body["metadata"]["resourceVersion"] = made.metadata.resourceVersion
        with self.assertRaises(ConflictError):
            self.maps.replace(body=body, namespace=self.namespace)
        listed = self.maps.get(namespace=self.namespace, field_selector="metadata.name=life")
        self.assertEqual((listed.kind, len(listed.items)), ("ConfigMapList", 1))
        seen = []
        for event in self.maps.watch(
            namespace=self.namespace, name="life", resource_version=made.metadata.resourceVersion, timeout=1
        ):
            seen.append((event["type"], event["object"].data.k))
        self.assertEqual(seen, [("MODIFIED", "2")])
        self.maps.delete(name="life", namespace=self.namespace)
        with self.assertRaises(NotFoundError):
            self.maps.get(name="life", namespace=self.namespace)

    def test_the_scale_of_a_set_is_a_resource_too(self):
        sets = self.dynamic.resources.get(api_version="apps/v1", kind="StatefulSet")
        body = client.ApiClient().sanitize_for_serialization(stateful_set("scaled", IDLE, replicas=2))
        sets.create(body=body, namespace=self.namespace)
        scale = sets.scale.get(name="scaled", namespace=self.namespace)
        self.assertEqual((scale.kind, scale.spec.replicas), ("Scale", 2))

    def test_a_manifest_of_several_documents_is_created(self):
        path = os.path.join(EXAMPLES, "plain.yaml")
        created = utils.create_from_yaml(client.ApiClient(), path, namespace=self.namespace)
        kinds = [item.kind for items in created for item in items]
        with open(path) as text:
            self.assertEqual(kinds, [document["kind"] for document in yaml.safe_load_all(text) if document])
        with self.assertRaises(utils.FailToCreateError) as caught:
            utils.create_from_yaml(client.ApiClient(), path, namespace=self.namespace)
        reasons = {error.reason for error in caught.exception.api_exceptions}
        self.assertEqual(reasons, {"Conflict"})
        name = next(item.metadata.name for items in created for item in items if item.kind == "StatefulSet")
        self.apps.delete_namespaced_stateful_set(name, self.namespace)

    def test_one_of_two_candidates_leads_and_the_other_follows_when_it_goes(self):
        leading = []

        class Lock(ConfigMapLock):
            gone = False

            def get(self, name, namespace):
                if self.gone:
                    raise SystemExit
                return super().get(name, namespace)

        def candidate(identity):
            lock = Lock("leader", self.namespace, identity)
            terms = electionconfig.Config(
                lock,
                lease_duration=3,
                renew_deadline=2,
                retry_period=1,
                onstarted_leading=lambda: leading.append(identity),
                onstopped_leading=None,
            )
            threading.Thread(target=leaderelection.LeaderElection(terms).run, daemon=True).start()
            return lock

        def held():
            return self.core.read_namespaced_config_map("leader", self.namespace).metadata

        one = candidate("one")
        until("one leads", lambda: leading)
        first = held()
        self.assertIn('"one"', first.annotations["control-plane.alpha.kubernetes.io/leader"])
        candidate("two")
        until("the lock is renewed", lambda: held().resource_version != first.resource_version)
        self.assertEqual(leading, ["one"])
        one.gone = True
        until("two leads", lambda: leading == ["one", "two"])
        self.assertIn('"two"', held().annotations["control-plane.alpha.kubernetes.io/leader"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
