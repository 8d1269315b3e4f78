"""What the tests share: the cluster that KUBECONFIG names, a namespace for each class, and waiting."""

import json
import sys
import time
import unittest
import uuid

from kubernetes import client, config

# Longer than anything takes, on a slow machine with other tests beside this one.
PATIENCE = 60


def until(what, look, patience=PATIENCE):
    """Look until it is so, and return what was seen; the last thing seen when it never is."""
    deadline = time.monotonic() + patience
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"after {patience}s still not: {what}")
        time.sleep(0.05)


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def stateful_set(name, script, replicas=1, **container):
    """A set of shells."""
    labels = {"app": name}
    main = client.V1Container(name="main", image="shell", command=["sh", "-c", script], **container)
    pod = client.V1PodSpec(containers=[main], termination_grace_period_seconds=1)
    return client.V1StatefulSet(
        metadata=client.V1ObjectMeta(name=name),
        spec=client.V1StatefulSetSpec(
            replicas=replicas,
            service_name=name,
            pod_management_policy="Parallel",
            selector=client.V1LabelSelector(match_labels=labels),
            template=client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=pod),
        ),
    )


# Waits for its end, which comes at once.
IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


class ClusterTest(unittest.TestCase):
    """Tests in a namespace of their own."""

    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.core = client.CoreV1Api()
        cls.apps = client.AppsV1Api()
        cls.namespace = f"py-{uuid.uuid4().hex[:8]}"
        cls.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=cls.namespace)))

    def refused(self, status, reason, call, *args, **kwargs):
        """The exception of a call that is refused with this status and reason."""
        with self.assertRaises(client.ApiException) as caught:
            call(*args, **kwargs)
        error = caught.exception
        self.assertEqual(error.status, status, error.body)
        body = json.loads(error.body)
        self.assertEqual((body["kind"], body["status"], body["code"]), ("Status", "Failure", status))
        self.assertEqual(body["reason"], reason, error.body)
        error.said = body
        return error


def petset(what):
    """Have petset terminated, killed or started, and wait until it is."""
    print(f"petset: {what}", flush=True)
    if not sys.stdin.readline():
        raise AssertionError("nobody does what is asked for: run this through cargo test")
