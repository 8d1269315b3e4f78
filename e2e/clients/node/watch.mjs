// Watches and informers, also while petset is restarted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as k8s from '@kubernetes/client-node';
import { IDLE, apps, config, configMap, core, makeNamespace, petset, statefulSet, until } from './cluster.mjs';

const namespace = await makeNamespace();
const maps = `/api/v1/namespaces/${namespace}/configmaps`;

/** A watch of ConfigMaps: what it has seen, and how it ended. */
async function follow(query) {
  const seen = [];
  let controller;
  const ended = new Promise((done) => {
    const note = (type, object) => {
      const { name, annotations } = object.metadata;
      seen.push([type, name ?? annotations, object.data?.k]);
    };
    controller = new k8s.Watch(config).watch(maps, query, note, done);
  });
  return { seen, ended, stop: async () => (await controller).abort() };
}

test('a watch has the past, then the future, and resumes where it was', async () => {
  const { metadata } = await core.listNamespacedConfigMap({ namespace });
  const made = await core.createNamespacedConfigMap({ namespace, body: configMap('w', { of: 'watch' }, { k: '1' }) });
  const watch = await follow({ resourceVersion: metadata.resourceVersion, labelSelector: 'of=watch' });
  await until('the past has come', () => watch.seen.length === 1);
  made.data.k = '2';
  const changed = await core.replaceNamespacedConfigMap({ namespace, name: 'w', body: made });
  await core.deleteNamespacedConfigMap({ namespace, name: 'w' });
  await until('the future has come', () => watch.seen.length === 3);
  const everything = [['ADDED', 'w', '1'], ['MODIFIED', 'w', '2'], ['DELETED', 'w', '2']];
  assert.deepEqual(watch.seen, everything);
  await watch.stop();
  const resumed = await follow({
    resourceVersion: changed.metadata.resourceVersion,
    labelSelector: 'of=watch',
    timeoutSeconds: 1,
  });
  assert.equal(await resumed.ended, null);
  assert.deepEqual(resumed.seen, everything.slice(2));
});

test('a streaming list ends with a bookmark', async () => {
  await core.createNamespacedConfigMap({ namespace, body: configMap('s', { of: 'stream' }) });
  const watch = await follow({
    labelSelector: 'of=stream',
    sendInitialEvents: true,
    resourceVersionMatch: 'NotOlderThan',
    allowWatchBookmarks: true,
    timeoutSeconds: 1,
  });
  assert.equal(await watch.ended, null);
  assert.deepEqual(watch.seen, [
    ['ADDED', 's', undefined],
    ['BOOKMARK', { 'k8s.io/initial-events-end': 'true' }, undefined],
  ]);
});

test('a watch ends cleanly when petset stops, and loses nothing when it is killed', async () => {
  for (const [how, clean] of [['terminate', true], ['kill', false]]) {
    const { metadata } = await core.listNamespacedConfigMap({ namespace });
    const since = { resourceVersion: metadata.resourceVersion, labelSelector: 'of=restart' };
    const watch = await follow(since);
    await core.createNamespacedConfigMap({ namespace, body: configMap(how, { of: 'restart' }) });
    await until('the watch has begun', () => watch.seen.length === 1);
    await petset(how);
    assert.equal((await watch.ended) === null, clean, how);
    await petset('start');
    await core.deleteNamespacedConfigMap({ namespace, name: how });
    const resumed = await follow(since);
    await until('all of it is there', () => resumed.seen.length === 2);
    assert.deepEqual(resumed.seen.map(([type, name]) => [type, name]), [['ADDED', how], ['DELETED', how]]);
    await resumed.stop();
  }
});

test('informers of a set that is scaled while petset is restarted know what there is', async () => {
  const history = new Map();
  const informers = {
    statefulsets: [`/apis/apps/v1/namespaces/${namespace}/statefulsets`, () => apps.listNamespacedStatefulSet({ namespace })],
    pods: [`/api/v1/namespaces/${namespace}/pods`, () => core.listNamespacedPod({ namespace })],
  };
  let stopped = false;
  for (const kind of Object.keys(informers)) {
    const [path, list] = informers[kind];
    const informer = k8s.makeInformer(config, path, list);
    for (const event of ['add', 'delete']) {
      informer.on(event, ({ metadata: { uid } }) => history.set(uid, [...(history.get(uid) ?? []), event]));
    }
    // As the library's own examples do it.
    informer.on('error', async () => {
      await sleep(100);
      if (!stopped) await informer.start();
    });
    informers[kind] = { informer, list };
    await informer.start();
  }
  const name = 'web';
  await apps.createNamespacedStatefulSet({ namespace, body: statefulSet(name, IDLE, 2) });
  let before = 2;
  for (const [how, replicas] of [['terminate', 3], ['kill', 1], ['terminate', 2]]) {
    await until(`there are ${before} pods`, async () => {
      const { items } = await core.listNamespacedPod({ namespace });
      return items.filter(({ metadata }) => !metadata.deletionTimestamp).length === before;
    });
    before = replicas;
    await apps.patchNamespacedStatefulSetScale(
      { namespace, name, body: { spec: { replicas } } },
      k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
    );
    await petset(how);
    await petset('start');
  }
  await until('the set has two available pods', async () => {
    const { metadata, status } = await apps.readNamespacedStatefulSet({ namespace, name });
    return (
      status.observedGeneration === metadata.generation && status.replicas === 2 && status.availableReplicas === 2
    );
  });
  const versions = (items) => items.map(({ metadata }) => `${metadata.uid} ${metadata.resourceVersion}`).sort().join();
  await until('the caches are what the API has', async () => {
    for (const { informer, list } of Object.values(informers)) {
      if (versions(informer.list()) !== versions((await list()).items)) return false;
    }
    return true;
  });
  stopped = true;
  const live = Object.values(informers).flatMap(({ informer }) => informer.list().map(({ metadata }) => metadata.uid));
  for (const [uid, events] of history) {
    assert.deepEqual(events, live.includes(uid) ? ['add'] : ['add', 'delete']);
  }
  assert(history.size >= 4);
  for (const { informer } of Object.values(informers)) await informer.stop();
});
