"""Server-side apply."""

import unittest

from kubernetes import client, dynamic

from cluster import ClusterTest, config_map


class Applying(ClusterTest):
    def apply(self, name, manager, data, **query):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        return self.core.patch_namespaced_config_map(
            name,
            self.namespace,
            body,
            field_manager=manager,
            _content_type="application/apply-patch+yaml",
            **query,
        )

    def test_fields_have_managers_and_what_is_no_longer_applied_goes(self):
        self.assertEqual(self.apply("owned", "one", {"a": "1", "b": "1"}).data, {"a": "1", "b": "1"})
        applied = self.apply("owned", "one", {"a": "2"})
        self.assertEqual(applied.data, {"a": "2"})
        fields = {field.manager: field for field in applied.metadata.managed_fields}
        self.assertEqual((fields["one"].operation, fields["one"].fields_type), ("Apply", "FieldsV1"))
        self.assertEqual(fields["one"].fields_v1, {"f:data": {"f:a": {}}})
        again = self.apply("owned", "one", {"a": "2"})
        self.assertEqual(again.metadata.resource_version, applied.metadata.resource_version)

    def test_a_conflict_names_the_other_and_can_be_forced(self):
        self.apply("fought", "one", {"a": "1"})
        error = self.refused(409, "Conflict", self.apply, "fought", "two", {"a": "2"})
        self.assertEqual(error.said["details"]["causes"][0]["reason"], "FieldManagerConflict")
        self.assertIn('conflict with "one"', error.said["message"])
        self.assertEqual(self.apply("fought", "two", {"a": "2"}, force=True).data, {"a": "2"})

    def test_the_dynamic_client_applies(self):
        maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
        body = client.ApiClient().sanitize_for_serialization(config_map("dynamic", k="1"))
        body |= {"apiVersion": "v1", "kind": "ConfigMap"}
        applied = maps.server_side_apply(body=body, namespace=self.namespace, field_manager="me")
        self.assertEqual(applied.data.k, "1")


if __name__ == "__main__":
    unittest.main(verbosity=2)
