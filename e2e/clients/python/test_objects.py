"""Objects: create, read, list, patch, apply, scale, delete, and what a refusal says."""

import json
import unittest

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from cluster import IDLE, ClusterTest, config_map, stateful_set, until


class Objects(ClusterTest):
    def test_what_was_created_is_read_back_typed(self):
        made = self.core.create_namespaced_config_map(self.namespace, config_map("typed", {"a": "b"}, k="v"))
        read = self.core.read_namespaced_config_map("typed", self.namespace)
        self.assertEqual(read, made)
        self.assertEqual(read.data, {"k": "v"})
        self.assertIsNotNone(read.metadata.creation_timestamp.tzinfo)
        self.assertEqual(read.metadata.managed_fields[0].manager, "OpenAPI-Generator")

    def test_a_secret_and_a_service_get_what_the_server_fills_in(self):
        secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="s-"), string_data={"user": "me"})
        made = self.core.create_namespaced_secret(self.namespace, secret)
        self.assertTrue(made.metadata.name.startswith("s-"))
        self.assertEqual((made.data, made.string_data, made.type), ({"user": "bWU="}, None, "Opaque"))
        port = client.V1ServicePort(port=80, target_port="http")
        spec = client.V1ServiceSpec(selector={"a": "b"}, ports=[port])
        service = client.V1Service(metadata=client.V1ObjectMeta(name="web"), spec=spec)
        made = self.core.create_namespaced_service(self.namespace, service)
        self.assertEqual((made.spec.type, made.spec.ports[0].target_port), ("ClusterIP", "http"))
        self.assertIsNotNone(made.spec.cluster_ip)

    def test_pages_of_a_list_are_one_consistent_list(self):
        for number in range(25):
            self.core.create_namespaced_config_map(self.namespace, config_map(f"page-{number:02}", {"in": "pages"}))
        select = {"label_selector": "in=pages", "limit": 10}
        first = self.core.list_namespaced_config_map(self.namespace, **select)
        self.core.delete_namespaced_config_map("page-20", self.namespace)
        names, page, sizes = [], first, []
        while True:
            self.assertEqual(page.metadata.resource_version, first.metadata.resource_version)
            names += [item.metadata.name for item in page.items]
            sizes.append(len(page.items))
            if not page.metadata._continue:
                break
            page = self.core.list_namespaced_config_map(self.namespace, _continue=page.metadata._continue, **select)
        self.assertEqual(names, [f"page-{number:02}" for number in range(25)])
        self.assertEqual(sizes, [10, 10, 5])
        whole = self.core.list_namespaced_config_map(self.namespace, label_selector="in=pages")
        self.assertEqual(len(whole.items), 24)

    def test_selectors_select(self):
        for name, labels in [("one", {"n": "1", "s": "x"}), ("two", {"n": "2", "s": "x"}), ("three", {"s": "x"})]:
            self.core.create_namespaced_config_map(self.namespace, config_map(name, labels))

        def names(**selectors):
            found = self.core.list_namespaced_config_map(self.namespace, **selectors)
            return [item.metadata.name for item in found.items]

        self.assertEqual(names(label_selector="s=x,n in (1,2)"), ["one", "two"])
        self.assertEqual(names(label_selector="s=x,!n"), ["three"])
        self.assertEqual(names(label_selector="s=x,n!=1"), ["three", "two"])
        self.assertEqual(names(field_selector="metadata.name=two"), ["two"])
        self.assertEqual(names(label_selector="s", field_selector="metadata.name!=two"), ["one", "three"])
        everywhere = self.core.list_config_map_for_all_namespaces(
            field_selector=f"metadata.namespace={self.namespace},metadata.name=one"
        )
        self.assertEqual([item.metadata.name for item in everywhere.items], ["one"])
        self.refused(
            400, "BadRequest", self.core.list_namespaced_pod, self.namespace, field_selector="spec.volumes=x"
        )

    def test_a_large_list_comes_compressed_when_it_is_asked_for(self):
        for number in range(8):
            big = config_map(f"big-{number}", {"is": "big"}, k="x" * 50_000)
            self.core.create_namespaced_config_map(self.namespace, big)
        answer = self.core.list_namespaced_config_map(
            self.namespace,
            label_selector="is=big",
            _preload_content=False,
            _headers={"Accept-Encoding": "gzip"},
        )
        self.assertEqual(answer.headers["Content-Encoding"], "gzip")
        self.assertLess(int(answer.headers.get("Content-Length") or len(answer.read(decode_content=False))), 100_000)
        typed = self.core.list_namespaced_config_map(
            self.namespace, label_selector="is=big", _headers={"Accept-Encoding": "gzip"}
        )
        self.assertEqual([len(item.data["k"]) for item in typed.items], [50_000] * 8)

    def test_every_type_of_patch_does_what_it_is_for(self):
        self.apps.create_namespaced_stateful_set(self.namespace, stateful_set("patched", IDLE, replicas=0))

        def patch(body, content_type):
            return self.apps.patch_namespaced_stateful_set(
                "patched", self.namespace, body, _content_type=content_type
            )

        sidecar = {"name": "sidecar", "image": "shell", "command": ["sh", "-c", IDLE]}
        body = {"spec": {"template": {"spec": {"containers": [sidecar]}}}}
        strategic = patch(body, "application/strategic-merge-patch+json")
        names = [container.name for container in strategic.spec.template.spec.containers]
        self.assertEqual(sorted(names), ["main", "sidecar"])
        merged = patch(body, "application/merge-patch+json")
        self.assertEqual([container.name for container in merged.spec.template.spec.containers], ["sidecar"])
        operations = [
            {"op": "test", "path": "/spec/replicas", "value": 0},
            {"op": "add", "path": "/metadata/annotations", "value": {"by": "json"}},
        ]
        patched = patch(operations, "application/json-patch+json")
        self.assertEqual(patched.metadata.annotations, {"by": "json"})
        operations[0]["value"] = 7
        self.refused(
            422,
            "Invalid",
            self.apps.patch_namespaced_stateful_set,
            "patched",
            self.namespace,
            operations,
            _content_type="application/json-patch+json",
        )
        untouched = self.apps.read_namespaced_stateful_set("patched", self.namespace)
        self.assertEqual(untouched.metadata.generation, patched.metadata.generation)

    def test_a_stale_replace_is_a_conflict_and_a_read_mends_it(self):
        first = self.core.create_namespaced_config_map(self.namespace, config_map("raced", k="1"))
        second = self.core.read_namespaced_config_map("raced", self.namespace)
        second.data["k"] = "2"
        self.core.replace_namespaced_config_map("raced", self.namespace, second)
        first.data["k"] = "3"
        error = self.refused(
            409, "Conflict", self.core.replace_namespaced_config_map, "raced", self.namespace, first
        )
        self.assertEqual(error.reason, "Conflict")
        self.assertIn("the object has been modified", error.said["message"])
        fresh = self.core.read_namespaced_config_map("raced", self.namespace)
        fresh.data["k"] = "3"
        self.assertEqual(self.core.replace_namespaced_config_map("raced", self.namespace, fresh).data["k"], "3")

    def test_refusals_say_what_was_wrong(self):
        error = self.refused(404, "NotFound", self.core.read_namespaced_pod, "nobody", self.namespace)
        self.assertEqual(error.said["message"], 'pods "nobody" not found')
        self.assertEqual(error.said["details"], {"name": "nobody", "kind": "pods"})
        self.core.create_namespaced_config_map(self.namespace, config_map("twice"))
        self.refused(409, "AlreadyExists", self.core.create_namespaced_config_map, self.namespace, config_map("twice"))
        error = self.refused(
            422, "Invalid", self.core.create_namespaced_config_map, self.namespace, config_map("Not_a_name")
        )
        self.assertEqual(error.said["details"]["causes"][0]["field"], "metadata.name")
        error = self.refused(
            404, "NotFound", self.core.create_namespaced_config_map, "nowhere-to-be-found", config_map("x")
        )
        self.assertEqual(error.said["message"], 'namespaces "nowhere-to-be-found" not found')
        wrong = config_map("wrong").to_dict() | {"data": {"k": 1}}
        self.refused(400, "BadRequest", self.core.create_namespaced_config_map, self.namespace, wrong)

    def test_a_dry_run_leaves_nothing(self):
        self.core.create_namespaced_config_map(self.namespace, config_map("dry"), dry_run="All")
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "dry", self.namespace)

    def test_a_set_is_scaled_through_its_scale(self):
        self.apps.create_namespaced_stateful_set(self.namespace, stateful_set("scaled", IDLE, replicas=1))

        def ready(replicas):
            status = self.apps.read_namespaced_stateful_set_status("scaled", self.namespace).status
            return (status.replicas, status.ready_replicas or 0) == (replicas, replicas)

        until("one replica is ready", lambda: ready(1))
        scale = self.apps.read_namespaced_stateful_set_scale("scaled", self.namespace)
        self.assertEqual((scale.spec.replicas, scale.status.selector), (1, "app=scaled"))
        scale.spec.replicas = 2
        self.apps.replace_namespaced_stateful_set_scale("scaled", self.namespace, scale)
        until("two replicas are ready", lambda: ready(2))
        self.apps.patch_namespaced_stateful_set_scale("scaled", self.namespace, {"spec": {"replicas": 0}})
        until("no replica is left", lambda: ready(0))

    def test_deletion_follows_its_propagation_policy(self):
        def pods(name):
            return self.core.list_namespaced_pod(self.namespace, label_selector=f"app={name}").items

        def gone(name):
            try:
                self.apps.read_namespaced_stateful_set(name, self.namespace)
                return False
            except ApiException as error:
                return error.status == 404

        for name in ("orphaning", "waiting"):
            self.apps.create_namespaced_stateful_set(self.namespace, stateful_set(name, IDLE))
            until("its pod runs", lambda: [pod for pod in pods(name) if pod.status.phase == "Running"])
        self.apps.delete_namespaced_stateful_set("orphaning", self.namespace, propagation_policy="Orphan")
        until("the set goes", lambda: gone("orphaning"))
        until("its pod has no owner", lambda: pods("orphaning")[0].metadata.owner_references is None)
        answer = self.apps.delete_namespaced_stateful_set(
            "waiting", self.namespace, body=client.V1DeleteOptions(propagation_policy="Foreground")
        )
        self.assertIsNotNone(answer)
        until("the set goes after its pods", lambda: gone("waiting"))
        self.assertEqual(pods("waiting"), [])
        wrong = client.V1Preconditions(uid="another")
        self.refused(
            409,
            "Conflict",
            self.core.delete_namespaced_pod,
            "orphaning-0",
            self.namespace,
            body=client.V1DeleteOptions(preconditions=wrong),
        )

    def test_a_collection_is_deleted_by_selector(self):
        for number in range(3):
            self.core.create_namespaced_config_map(self.namespace, config_map(f"many-{number}", {"are": "many"}))
        self.core.delete_collection_namespaced_config_map(self.namespace, label_selector="are=many")
        left = self.core.list_namespaced_config_map(self.namespace, label_selector="are=many")
        self.assertEqual(left.items, [])

    def test_versions_and_kinds_are_told(self):
        version = client.VersionApi().get_code()
        self.assertEqual((version.major, version.minor), ("1", "36"))
        groups = [group.name for group in client.ApisApi().get_api_versions().groups]
        for group in ("apps", "coordination.k8s.io", "discovery.k8s.io", "storage.k8s.io"):
            self.assertIn(group, groups)
        kinds = {resource.name: resource for resource in self.apps.get_api_resources().resources}
        self.assertEqual(kinds["statefulsets"].short_names, ["sts"])
        self.assertIn("statefulsets/scale", kinds)

    def test_raw_bodies_are_what_was_written(self):
        self.core.create_namespaced_config_map(self.namespace, config_map("raw", k="ü\n\u2028"))
        answer = self.core.read_namespaced_config_map("raw", self.namespace, _preload_content=False)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertEqual(json.loads(answer.data)["data"], {"k": "ü\n\u2028"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
