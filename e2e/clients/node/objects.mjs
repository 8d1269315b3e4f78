// Objects: create, read, list, every way to patch but apply, scale, delete; and any kind through KubernetesObjectApi.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import * as k8s from '@kubernetes/client-node';
import fetch from 'node-fetch';
import { IDLE, apps, config, configMap, core, makeNamespace, refused, statefulSet, until } from './cluster.mjs';

const namespace = await makeNamespace();
const as = (type) => k8s.setHeaderOptions('Content-Type', type);

test('what was created is read back, typed', async () => {
  const made = await core.createNamespacedConfigMap({ namespace, body: configMap('typed', { a: 'b' }, { k: 'v' }) });
  const read = await core.readNamespacedConfigMap({ namespace, name: 'typed' });
  assert.deepEqual(read, made);
  assert.deepEqual(read.data, { k: 'v' });
  assert(read.metadata.creationTimestamp instanceof Date);
});

test('pages of a list are one consistent list', async () => {
  for (let number = 10; number < 22; number++) {
    await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${number}`, { in: 'pages' }) });
  }
  const select = { namespace, labelSelector: 'in=pages', limit: 5 };
  let page = await core.listNamespacedConfigMap(select);
  const version = page.metadata.resourceVersion;
  await core.deleteNamespacedConfigMap({ namespace, name: 'page-20' });
  const names = [];
  for (;;) {
    assert.equal(page.metadata.resourceVersion, version);
    names.push(...page.items.map((item) => item.metadata.name));
    if (!page.metadata._continue) break;
    page = await core.listNamespacedConfigMap({ ...select, _continue: page.metadata._continue });
  }
  assert.deepEqual(names, Array.from({ length: 12 }, (_, number) => `page-${number + 10}`));
});

test('a large list, which comes compressed, is decoded', async () => {
  for (let number = 0; number < 4; number++) {
    const body = configMap(`big-${number}`, { is: 'big' }, { k: 'x'.repeat(50_000) });
    await core.createNamespacedConfigMap({ namespace, body });
  }
  const list = await core.listNamespacedConfigMap({ namespace, labelSelector: 'is=big' });
  assert.deepEqual(list.items.map((item) => item.data.k.length), [50_000, 50_000, 50_000, 50_000]);
  // What the library does, for its headers.
  const url = `${config.getCurrentCluster().server}/api/v1/namespaces/${namespace}/configmaps`;
  const response = await fetch(url, await config.applyToFetchOptions({}));
  assert.equal(response.headers.get('content-encoding'), 'gzip');
  response.body.destroy();
});

test('every type of patch does what it is for', async () => {
  await apps.createNamespacedStatefulSet({ namespace, body: statefulSet('patched', IDLE, 0) });
  const patch = (body, type) =>
    apps.patchNamespacedStatefulSet({ namespace, name: 'patched', body, fieldManager: 'me' }, as(type));
  const containers = (set) => set.spec.template.spec.containers.map((container) => container.name).sort();
  const sidecar = { name: 'sidecar', image: 'shell', command: ['sh', '-c', IDLE] };
  const body = { spec: { template: { spec: { containers: [sidecar] } } } };
  assert.deepEqual(containers(await patch(body, k8s.PatchStrategy.StrategicMergePatch)), ['main', 'sidecar']);
  assert.deepEqual(containers(await patch(body, k8s.PatchStrategy.MergePatch)), ['sidecar']);
  const operations = [{ op: 'add', path: '/metadata/annotations', value: { by: 'json' } }];
  const patched = await patch(operations, k8s.PatchStrategy.JsonPatch);
  assert.deepEqual(patched.metadata.annotations, { by: 'json' });
});

test('refusals say what was wrong', async () => {
  const missing = await refused(404, 'NotFound', core.readNamespacedPod({ namespace, name: 'nobody' }));
  assert.equal(missing.message, 'pods "nobody" not found');
  const bad = core.createNamespacedConfigMap({ namespace, body: configMap('Not_a_name') });
  assert.equal((await refused(422, 'Invalid', bad)).details.causes[0].field, 'metadata.name');
  await core.createNamespacedConfigMap({ namespace, body: configMap('twice') });
  await refused(409, 'AlreadyExists', core.createNamespacedConfigMap({ namespace, body: configMap('twice') }));
});

test('a set is scaled through its scale and deleted with its pods', async () => {
  const name = 'scaled';
  await apps.createNamespacedStatefulSet({ namespace, body: statefulSet(name, IDLE, 1) });
  const ready = async (replicas) => {
    const { status } = await apps.readNamespacedStatefulSet({ namespace, name });
    return status.replicas === replicas && (status.readyReplicas ?? 0) === replicas;
  };
  await until('one replica is ready', () => ready(1));
  const scale = await apps.readNamespacedStatefulSetScale({ namespace, name });
  assert.equal(scale.spec.replicas, 1);
  scale.spec.replicas = 2;
  await apps.replaceNamespacedStatefulSetScale({ namespace, name, body: scale });
  await until('two replicas are ready', () => ready(2));
  await apps.deleteNamespacedStatefulSet({ namespace, name, propagationPolicy: 'Foreground' });
  await until('set and pods are gone', async () => {
    const sets = await apps.listNamespacedStatefulSet({ namespace, fieldSelector: `metadata.name=${name}` });
    return sets.items.length === 0;
  });
  assert.deepEqual((await core.listNamespacedPod({ namespace, labelSelector: `app=${name}` })).items, []);
});

test('any kind of a manifest goes through its life', async () => {
  const api = k8s.KubernetesObjectApi.makeApiClient(config);
  const text = `
apiVersion: v1
kind: Service
metadata: {name: any}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: any}
spec: {holderIdentity: me, renewTime: "2026-01-02T03:04:05.678901Z"}
`;
  for (const spec of k8s.loadAllYaml(text)) {
    spec.metadata.namespace = namespace;
    const made = await api.create(spec);
    assert.equal(made.kind, spec.kind);
    const header = { apiVersion: spec.apiVersion, kind: spec.kind, metadata: { name: 'any', namespace } };
    const patched = await api.patch({ ...header, metadata: { ...header.metadata, labels: { a: 'b' } } });
    assert.deepEqual(patched.metadata.labels, { a: 'b' });
    const read = await api.read(header);
    assert.equal(read.metadata.resourceVersion, patched.metadata.resourceVersion);
    const replaced = await api.replace({ ...read, metadata: { ...read.metadata, labels: { a: 'c' } } });
    assert.deepEqual(replaced.metadata.labels, { a: 'c' });
    const listed = await api.list(spec.apiVersion, spec.kind, namespace);
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ['any']);
    await api.delete(header);
    await refused(404, 'NotFound', api.read(header));
  }
});

test('the kubeconfig is one that the library could have written', async () => {
  const again = new k8s.KubeConfig();
  again.loadFromString(config.exportConfig());
  assert.equal(again.getCurrentCluster().server, config.getCurrentCluster().server);
  assert.match(await readFile(process.env.KUBECONFIG, 'utf8'), /certificate-authority/);
  const version = await again.makeApiClient(k8s.VersionApi).getCode();
  assert.equal(`${version.major}.${version.minor}`, '1.36');
});
