// What the tests share: the cluster that KUBECONFIG names, a namespace for each file, and waiting.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import * as k8s from '@kubernetes/client-node';

// Longer than anything takes, on a slow machine with other tests beside this one.
const PATIENCE = 60_000;

export const config = new k8s.KubeConfig();
config.loadFromDefault();
export const core = config.makeApiClient(k8s.CoreV1Api);
export const apps = config.makeApiClient(k8s.AppsV1Api);

/** A namespace that is new. */
export async function makeNamespace() {
  const name = `node-${randomBytes(4).toString('hex')}`;
  await core.createNamespace({ body: { metadata: { name } } });
  return name;
}

/** Look until it is so, and return what was seen. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    assert(Date.now() < deadline, `after ${PATIENCE / 1000}s still not: ${what}`);
    await sleep(50);
  }
}

/** The body of a call that is refused with this code and reason. */
export async function refused(code, reason, call) {
  const error = await call.then(
    () => assert.fail(`this should have been refused: ${reason}`),
    (error) => error,
  );
  assert.equal(error.code, code, String(error));
  const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
  assert.deepEqual([body.kind, body.status, body.code, body.reason], ['Status', 'Failure', code, reason]);
  return body;
}

export const configMap = (name, labels, data) => ({ metadata: { name, labels }, data });

// Waits for its end, which comes at once.
export const IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/** A set of shells. */
export function statefulSet(name, script, replicas, container = {}) {
  const labels = { app: name };
  const main = { name: 'main', image: 'shell', command: ['sh', '-c', script], ...container };
  return {
    metadata: { name },
    spec: {
      replicas,
      serviceName: name,
      podManagementPolicy: 'Parallel',
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { terminationGracePeriodSeconds: 1, containers: [main] } },
    },
  };
}

/** Have petset terminated, killed or started, and wait until it is. */
export async function petset(what) {
  process.stdout.write(`petset: ${what}\n`);
  process.stdin.resume();
  await once(process.stdin, 'data');
  process.stdin.pause();
}
