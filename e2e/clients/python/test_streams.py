"""Exec, attach and port-forward over WebSockets."""

import json
import unittest

from kubernetes import client
from kubernetes.stream import portforward, stream

from cluster import ClusterTest, stateful_set, until

# Repeats what it is told.
ECHO = 'while read -r line; do echo "told $line"; done; sleep 60'

# Answers every line at its pod's port 8080.
SERVER = r"""
use IO::Socket::INET; $| = 1;
my $s = IO::Socket::INET->new(LocalAddr => "$ENV{PETSET_POD_IP}:8080", Listen => 16, ReuseAddr => 1) or die;
print "listening\n";
while (my $c = $s->accept) { my $line = <$c>; print $c "you said $line"; close $c }
"""


class Streams(ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.apps.create_namespaced_stateful_set(cls.namespace, stateful_set("web", ECHO, stdin=True))
        server = stateful_set("server", "")
        server.spec.template.spec.containers[0].command = ["perl", "-e", SERVER]
        cls.apps.create_namespaced_stateful_set(cls.namespace, server)

        def running(name):
            found = cls.core.list_namespaced_pod(cls.namespace, field_selector=f"metadata.name={name}").items
            return found and found[0].status.phase == "Running"

        until("web-0 runs", lambda: running("web-0"))
        until("server-0 runs", lambda: running("server-0"))

    def exec(self, *command, **options):
        # A stream changes its client for good.
        core = client.CoreV1Api(client.ApiClient())
        options = {"stdin": False, "stdout": True, "stderr": True, "tty": False} | options
        return stream(
            core.connect_get_namespaced_pod_exec, "web-0", self.namespace, command=list(command), **options
        )

    def test_a_programs_output_is_returned(self):
        self.assertEqual(self.exec("sh", "-c", "echo hällo; echo $HOSTNAME"), "hällo\nweb-0\n")

    def test_input_output_and_exit_code_are_separate(self):
        process = self.exec(
            "sh", "-c", "read -r line; echo out $line; echo err >&2; exit 7", stdin=True, _preload_content=False
        )
        process.write_stdin("something\n")
        process.run_forever(timeout=30)
        self.assertEqual((process.read_stdout(), process.read_stderr()), ("out something\n", "err\n"))
        self.assertEqual(process.returncode, 7)

    def test_a_program_that_cannot_be_run_is_told(self):
        process = self.exec("no-such-program", _preload_content=False)
        process.run_forever(timeout=30)
        status = json.loads(process.read_channel(3))
        self.assertEqual(status["status"], "Failure")
        self.assertIn("no-such-program", status["message"])

    def test_a_terminal_is_one(self):
        self.assertEqual(self.exec("sh", "-c", "test -t 0 && test -t 1 && echo yes", tty=True, stdin=True), "yes\r\n")

    def test_there_is_nothing_to_run_in_a_pod_that_is_not_there(self):
        # Version 36 of the library trips over its own exception, which has no body; what it was told is in there.
        with self.assertRaises((client.ApiException, AttributeError)) as caught:
            stream(
                client.CoreV1Api(client.ApiClient()).connect_get_namespaced_pod_exec,
                "nobody",
                self.namespace,
                command=["true"],
                stdout=True,
            )
        error = caught.exception
        refusal = error if isinstance(error, client.ApiException) else error.__context__
        self.assertIn("404", refusal.reason)
        self.assertIn('pods \\"nobody\\" not found', refusal.reason)

    def test_a_container_is_attached_to(self):
        core = client.CoreV1Api(client.ApiClient())
        process = stream(
            core.connect_get_namespaced_pod_attach,
            "web-0",
            self.namespace,
            stdin=True,
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        process.write_stdin("something\n")
        # More than one message waits for the client, which looks for more on the socket alone.
        until(
            "it has answered",
            lambda: "told something" in self.core.read_namespaced_pod_log("web-0", self.namespace),
        )
        self.assertEqual(process.readline_stdout(timeout=30), "told something")
        process.close()

    def test_a_port_is_forwarded(self):
        until(
            "it listens",
            lambda: "listening" in self.core.read_namespaced_pod_log("server-0", self.namespace),
        )
        for word in ("one", "two"):
            core = client.CoreV1Api(client.ApiClient())
            forward = portforward(
                core.connect_get_namespaced_pod_portforward, "server-0", self.namespace, ports="8080"
            )
            socket = forward.socket(8080)
            socket.setblocking(True)
            socket.settimeout(30)
            socket.sendall(f"{word}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                answer += socket.recv(1024)
            self.assertEqual(answer.decode(), f"you said {word}\n")
            self.assertIsNone(forward.error(8080))
            socket.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
