// Exec, attach and port-forward over WebSockets.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { before, test } from 'node:test';
import * as k8s from '@kubernetes/client-node';
import { apps, config, core, makeNamespace, statefulSet, until } from './cluster.mjs';

// Repeats what it is told.
const ECHO = 'while read -r line; do echo "told $line"; done; sleep 60';

// Answers every line at its pod's port 8080.
const SERVER = `
use IO::Socket::INET; $| = 1;
my $s = IO::Socket::INET->new(LocalAddr => "$ENV{PETSET_POD_IP}:8080", Listen => 16, ReuseAddr => 1) or die;
print "listening\\n";
while (my $c = $s->accept) { my $line = <$c>; print $c "you said $line"; close $c }
`;

const namespace = await makeNamespace();

before(async () => {
  await apps.createNamespacedStatefulSet({ namespace, body: statefulSet('web', ECHO, 1, { stdin: true }) });
  const body = statefulSet('server', '', 1, { command: ['perl', '-e', SERVER] });
  await apps.createNamespacedStatefulSet({ namespace, body });
  for (const name of ['web-0', 'server-0']) {
    await until(`${name} runs`, async () => {
      const found = await core.listNamespacedPod({ namespace, fieldSelector: `metadata.name=${name}` });
      return found.items[0]?.status.phase === 'Running';
    });
  }
  await until('the server listens', async () => {
    const log = await core.readNamespacedPodLog({ namespace, name: 'server-0' });
    return log.includes('listening');
  });
});

/** A stream that collects what is written to it. */
function collect() {
  const stream = new PassThrough();
  stream.text = '';
  stream.on('data', (data) => (stream.text += data));
  return stream;
}

/** Run a program: what it said, and its status. */
async function run(command, input) {
  const [stdout, stderr, stdin] = [collect(), collect(), input === undefined ? null : new PassThrough()];
  const status = await new Promise((done, fail) => {
    new k8s.Exec(config)
      .exec(namespace, 'web-0', 'main', command, stdout, stderr, stdin, false, done)
      .then(() => stdin?.end(input), fail);
  });
  return { out: stdout.text, err: stderr.text, status };
}

test('a program has input, output and an exit code', async () => {
  const { out, err, status } = await run(['sh', '-c', 'cat; echo err >&2; exit 7'], 'hällo\n');
  assert.deepEqual([out, err], ['hällo\n', 'err\n']);
  assert.equal(status.reason, 'NonZeroExitCode');
  assert.deepEqual(status.details.causes, [{ reason: 'ExitCode', message: '7' }]);
  assert.equal((await run(['true'])).status.status, 'Success');
});

test('a container is attached to', async () => {
  const [stdout, stdin] = [collect(), new PassThrough()];
  const socket = await new k8s.Attach(config).attach(namespace, 'web-0', 'main', stdout, null, stdin, false);
  stdin.write('something\n');
  await until('it answers', () => stdout.text.includes('told something\n'));
  socket.close();
});

test('a port is forwarded', async () => {
  for (const word of ['one', 'two']) {
    const [output, errors, input] = [collect(), collect(), new PassThrough()];
    const forward = new k8s.PortForward(config);
    const socket = await forward.portForward(namespace, 'server-0', [8080], output, errors, input);
    input.write(`${word}\n`);
    await until('it answers', () => output.text === `you said ${word}\n`);
    assert.equal(errors.text, '');
    socket.close();
  }
});

test('logs are followed', async () => {
  const stream = collect();
  const controller = await new k8s.Log(config).log(namespace, 'server-0', 'main', stream, { follow: true });
  await until('the line is there', () => stream.text === 'listening\n');
  controller.abort();
});
