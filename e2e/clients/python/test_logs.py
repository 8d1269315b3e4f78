"""Logs, read and followed."""

import unittest

from cluster import ClusterTest, stateful_set, until


class Logs(ClusterTest):
    def test_logs_are_read_and_followed(self):
        script = "for n in 1 2 3; do echo line $n; done; sleep 60"
        self.apps.create_namespaced_stateful_set(self.namespace, stateful_set("web", script))

        def pod():
            found = self.core.list_namespaced_pod(self.namespace).items
            return found and found[0].status.phase == "Running" and found[0].metadata.name

        name = until("its pod runs", pod)

        # Version 36 of the library returns the text of a log as the repr of its bytes, and its Watch does not follow
        # logs (kubernetes-client/python#2596); as bytes and as a stream they are right.
        def log(**query):
            answer = self.core.read_namespaced_pod_log(name, self.namespace, _preload_content=False, **query)
            self.assertEqual(answer.headers["Content-Type"], "text/plain")
            return answer

        everything = "line 1\nline 2\nline 3\n"
        until("it has said all", lambda: log().data.decode() == everything)
        self.assertRegex(log(tail_lines=1, timestamps=True).data.decode(), r"^\d{4}-\d\d-\d\dT[0-9:.]+Z line 3\n$")
        followed, following = "", log(follow=True)
        for part in following.stream():
            followed += part.decode()
            if len(followed) >= len(everything):
                break
        following.close()
        self.assertEqual(followed, everything)
        error = self.refused(
            400, "BadRequest", self.core.read_namespaced_pod_log, name, self.namespace, container="other"
        )
        self.assertEqual(error.said["message"], f"container other is not valid for pod {name}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
